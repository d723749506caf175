"""Checks of one model put side by side: every compressed folder, dense and int8, as points to compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._stats import paired_ratio
from narrows._values import ModelPoint
from narrows.errors import InputError
from narrows.reporting._model_points import DENSE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows._values import Workload
    from narrows._values._check import Check, CheckedSide

INT8_NOTE = "dense with weights in 8 bits (torchao)"


def check_comparable(checks: Sequence[Check]) -> None:
    """Raise InputError unless checks are of one model, text, dtype and machine, and of different folders."""
    first = checks[0]
    for name in ("model", "kind", "dtype", "device_name"):
        for other in checks[1:]:
            own, wanted = getattr(other, name), getattr(first, name)
            if own != wanted:
                raise InputError(
                    f"{other.folder}: {name} is {own!r}, of {first.folder} {wanted!r}: checks side by side need the "
                    "same. Check both folders again, in the same way."
                )
    for other in checks[1:]:
        if (other.text and other.text.sha256) != (first.text and first.text.sha256):
            raise InputError(
                f"{other.folder} was checked on other text than {first.folder}: give both checks the same --texts."
            )
    names = [one.folder for one in checks]
    if len(set(names)) < len(names):
        raise InputError(f"{max(names, key=names.count)} is given more than once: one check for each folder.")


def workloads_of(checks: Sequence[Check]) -> tuple[Workload, ...]:
    """Return the workloads that every check timed."""
    timed = [{one.workload for one in check.timings} for check in checks]
    return tuple(
        load for load in dict.fromkeys(one.workload for one in checks[0].timings) if set.intersection(*timed) >= {load}
    )


def check_points(checks: Sequence[Check], workload: Workload | None) -> tuple[ModelPoint, ...]:
    """Return dense, int8 where it was run, and every compressed folder, as measured.

    Speedups are against the dense model of the same run; dense's and int8's figures are those of the first check.

    Args:
        checks: comparable (`check_comparable`).
        workload: that speed is of; None: no speed.
    """
    first = checks[0]
    found = [_point(first, first.side("dense"), DENSE, workload)]
    int8 = first.side("int8")
    if not int8.missing:
        found.append(_point(first, int8, "int8", workload))
    found += [_point(check, check.side("narrows"), _label(check), workload) for check in checks]
    return tuple(found)


def _label(check: Check) -> str:
    kept, dense = check.side("narrows").numbers, check.side("dense").numbers
    assert kept is not None
    assert dense is not None
    return f"keep {kept / dense:.3g}"


def _point(check: Check, side: CheckedSide, label: str, workload: Workload | None) -> ModelPoint:
    dense = check.side("dense")
    assert side.numbers is not None
    assert side.kept_bytes is not None
    assert dense.numbers is not None
    value, low, high = _perplexity(dense, side)
    speedup, slow, fast = _speed(check, side, workload)
    return ModelPoint(
        label,
        side.numbers / dense.numbers,
        side.kept_bytes,
        speedup,
        slow,
        fast,
        value,
        low,
        high,
        note={"int8": INT8_NOTE, "narrows": check.folder}.get(side.name, ""),
        is_choice=side.name == "narrows",
    )


def _perplexity(dense: CheckedSide, side: CheckedSide) -> tuple[float | None, float | None, float | None]:
    """Return perplexity with the ends of its interval, which are those of its ratio to dense's."""
    if dense.language is None or side.language is None:
        return None, None, None
    base, ratio = dense.language.perplexity, side.language.ratio
    if ratio is None or ratio.low is None or ratio.high is None:
        return side.language.perplexity, None, None
    return side.language.perplexity, base * ratio.low, base * ratio.high


def _speed(
    check: Check, side: CheckedSide, workload: Workload | None
) -> tuple[float | None, float | None, float | None]:
    timed = {one.side: one.samples_ns for one in check.timings if one.workload == workload}
    if side.name not in timed:
        return None, None, None
    if side.name == "dense":
        return 1.0, 1.0, 1.0
    ratio = paired_ratio(timed["dense"], timed[side.name])
    return ratio.value, ratio.low, ratio.high
