"""From the store to a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narrows
from narrows import _cost
from narrows._values import Ceilings, Machine, OutputError, Report, Row, WeightRecord

if TYPE_CHECKING:
    from narrows.bench._point import Check, Point
    from narrows.bench._store import Store
    from narrows.bench._sweep import Sweep


def _machine(fields: dict[str, Any]) -> Machine:
    return Machine(**{**fields, "features": tuple(fields["features"])})


def _ceilings(fields: dict[str, Any] | None) -> Ceilings | None:
    if fields is None:
        return None
    return Ceilings(**{**fields, "flops_shape": tuple(fields["flops_shape"])})


def _weight(fields: dict[str, Any]) -> WeightRecord:
    errors = {int(rank): error for rank, error in fields["factor_errors"].items()}
    return WeightRecord(**{**fields, "singular_values": tuple(fields["singular_values"]), "factor_errors": errors})


def _limit(check: Check, point: Point, ceilings: Ceilings | None, device: str) -> float | None:
    if ceilings is None or not check.can_be_timed:
        return None
    held = check.memory_bytes - check.bytes_read - check.bytes_written
    cost = _cost.Cost(check.flops, check.bytes_read, check.bytes_written, held)
    return _cost.limit_ns(
        cost,
        check.launches,
        ceilings,
        mode=point.mode,
        cache=point.cache,
        is_asynchronous=device.startswith("cuda"),
    )


def _row(
    point: Point, check: Check | None, samples: list[tuple[int, float]], ceilings: Ceilings | None, device: str
) -> Row:
    if check is None:
        return Row(**point.to_json(), status="not measured", reason="the time budget was spent before its turn")
    kept = samples if check.can_be_timed else []
    status, reason = check.status, check.reason
    if check.can_be_timed and not kept:
        status, reason = "not measured", "checked, but the time budget was spent before its first sample"
    return Row(
        **point.to_json(),
        status=status,
        reason=reason,
        samples_ns=tuple(ns for _, ns in kept),
        rounds=tuple(number for number, _ in kept),
        launches=check.launches,
        flops=check.flops,
        bytes_read=check.bytes_read,
        bytes_written=check.bytes_written,
        limit_ns=_limit(check, point, ceilings, device),
        memory_bytes=check.memory_bytes,
        peak_memory_bytes=check.peak_memory_bytes,
        rounding=check.rounding,
        worst=check.worst,
    )


def assemble(sweep: Sweep, store: Store) -> Report:
    """Return everything the store knows of a sweep's experiment, as one report."""
    keys, asked = sweep.keys, sweep.experiment
    ceilings = _ceilings(store.fact(keys.run("ceilings")))
    weights, errors = [], []
    for index, source in enumerate(asked.weights):
        fact = store.fact(keys.weight(index))
        if fact is not None:
            weights.append(_weight({**fact["weight"], "name": source.name}))
            errors += [OutputError(**{**error, "weight": source.name}) for error in fact["errors"]]
    points = [point for tokens in asked.tokens for point in sweep.points(tokens)]
    rows = [_row(p, sweep.check_of(p), store.samples(keys.point(p)), ceilings, asked.device) for p in points]
    return Report(
        experiment=asked,
        machine=_machine(sweep.opening["machine"]),
        ceilings=ceilings,
        weights=tuple(weights),
        errors=tuple(errors),
        rows=tuple(rows),
        created=store.last_sample_time([keys.point(point) for point in points]),
        version=narrows.__version__,
        inputs=keys.inputs,
        conditions=store.fact(keys.run("conditions")) or {},
    )
