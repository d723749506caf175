"""Synthetic reports: every figure comes from a callable, so a test can make any statement hold or fail.

Deterministic. Times get a per-round factor that all rows of a round share (a slow minute falls on
every side) and a factor of their own; both are about 1 + noise * N(0, 1).
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import numpy as np

from narrows._cost import dense_cost, thin_cost
from narrows._values import Ceilings, Experiment, Machine, OutputError, Report, Row, WeightRecord, WeightSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from narrows._cost import Cost

TOKENS = (64, 128, 256, 512, 1024, 2048, 4096)
RANKS = (64, 128, 256, 512, 1024, 2048, 4096)
WEIGHTS = ("gaussian", "power", "product")
TRUE_RANK = 128  # of the weight called "product"
FLOPS_PER_NS, BYTES_PER_NS, CALL_NS = 100.0, 20.0, 20_000.0

MACHINE = Machine(
    fingerprint="f" * 16,
    device="cpu",
    name="Synthetic CPU",
    cores=2,
    threads=2,
    caches={"L1d": 32 << 10, "L2": 1 << 20, "L3": 32 << 20},
    features=("avx2", "fma"),
    memory_bytes=8 << 30,
    software={"python": "3.11.7", "torch": "2.13.0"},
)
CEILINGS = Ceilings(
    dtype="float32",
    read_bytes_per_s=20e9,
    write_bytes_per_s=10e9,
    hot_read_bytes_per_s=80e9,
    hot_write_bytes_per_s=40e9,
    copy_bytes_per_s=25e9,
    flops_per_s=150e9,
    flops_shape=(1024, 4096, 4096),
    eager_launch_ns=2_000.0,
    graph_launch_ns=0.0,
    last_level_cache_bytes=32 << 20,
)


def dense_speed(tokens: int) -> float:
    """Return a dense time in ns that grows like tokens x (4096 + tokens): the chain's own FLOPs."""
    return 2.0 * tokens * 4096 * (4096 + tokens) / FLOPS_PER_NS


def with_speedup(speedup: Callable[[int, int], float]) -> Callable[[int, int | None, str], float]:
    """Return a `time_ns` in which every variant of (tokens, rank) is `speedup(tokens, rank)` faster than dense."""

    def time_ns(tokens: int, rank: int | None, variant: str) -> float:
        slower = 1.05 if variant == "right" else 1.0
        return dense_speed(tokens) * slower if rank is None else dense_speed(tokens) / speedup(tokens, rank)

    return time_ns


def gaussian_error(weight: str, tokens: int, rank: int) -> float:
    """Return about what d = 4096 weights lose: Gaussian most, "product" nothing from its true rank on."""
    del tokens
    if weight == "product":
        return 1e-7 if rank >= TRUE_RANK else math.sqrt(1 - rank / TRUE_RANK)
    kept = rank / 4096
    return max((1 - kept) ** (1.5 if weight == "power" else 1.05), 1e-7)


def make_report(
    *,
    time_ns: Callable[[int, int | None, str], float] | None = None,
    tokens: Sequence[int] = TOKENS,
    ranks: Sequence[int] = RANKS,
    rounds: int = 12,
    noise: float = 0.01,
    seed: int = 0,
    errors: Callable[[str, int, int], float] = gaussian_error,
    weights: Sequence[str] = WEIGHTS,
    features: int = 4096,
    kind: str = "bilinear",
    variants: Sequence[str] = ("three", "two"),
    dtype: str = "float32",
    modes: Sequence[str] = ("eager",),
    caches: Sequence[str] = ("hot",),
    share: Callable[[int, int | None, str], float] | float = 0.5,
    peak_bytes: Callable[[int, int | None, str], int | None] | None = None,
    preparation_s: float = 30.0,
    machine: Machine = MACHINE,
    version: str = "0.1.0",
) -> Report:
    """Return a report whose rows have the times, errors, shares and peaks that the callables say.

    Args:
        time_ns: (tokens, rank or None for dense, variant) -> ns of one call. Default: FLOPs and
            bytes of the chain at 100 FLOP/ns and 20 B/ns, and 20 us a call.
        errors: (weight, tokens, rank) -> relative output error; the upper end is 2 % above it.
        weights: names; "gaussian", "power" and "product" are also their sources.
        variants: thin implementations; dense rows are "left" and "right" ("linear" for that kind).
        share: limit / time, constant or by (tokens, rank, variant).
        peak_bytes: measured peak; default 5 % above the formula.
    """
    experiment = Experiment(
        kind=kind,
        in_features=features,
        out_features=features,
        tokens=tuple(tokens),
        ranks=tuple(ranks),
        weights=tuple(_source(name) for name in weights),
        dtype=dtype,
        modes=tuple(modes),
        caches=tuple(caches),
        seed=seed,
    )
    rng = np.random.default_rng(seed)
    shared = {(t, m, c): 1 + noise * rng.standard_normal(rounds) for t in tokens for m in modes for c in caches}

    def row(length: int, rank: int | None, variant: str, mode: str, cache: str) -> Row:
        problem = experiment.problem(length)
        cost = dense_cost(problem, variant) if rank is None else thin_cost(problem, rank)
        base = _default_time(cost) if time_ns is None else time_ns(length, rank, variant)
        own = np.random.default_rng(zlib.crc32(f"{seed}/{length}/{rank}/{variant}/{mode}/{cache}".encode()))
        samples = base * shared[length, mode, cache] * (1 + noise * own.standard_normal(rounds))
        part = share if isinstance(share, float) else share(length, rank, variant)
        return Row(
            tokens=length,
            rank=rank,
            variant=variant,
            mode=mode,
            cache=cache,
            status="ok",
            samples_ns=tuple(float(sample) for sample in samples),
            rounds=tuple(range(rounds)),
            launches=3 if variant == "three" else 2,
            flops=cost.flops,
            bytes_read=cost.bytes_read,
            bytes_written=cost.bytes_written,
            limit_ns=part * base,
            memory_bytes=cost.memory_bytes,
            peak_memory_bytes=(
                int(1.05 * cost.memory_bytes) if peak_bytes is None else peak_bytes(length, rank, variant)
            ),
            rounding=2e-7,
            worst=0.1,
        )

    dense = ("left", "right") if kind == "bilinear" else ("linear",)
    sides = [(None, name) for name in dense] + [(rank, name) for rank in ranks for name in variants]
    return Report(
        experiment=experiment,
        machine=machine,
        ceilings=CEILINGS,
        weights=tuple(_record(name, ranks, errors, preparation_s) for name in weights),
        errors=tuple(_error(errors, name, t, r) for name in weights for t in tokens for r in ranks),
        rows=tuple(row(t, r, v, m, c) for t in tokens for m in modes for c in caches for r, v in sides),
        created="2026-01-02T03:04:05+00:00",
        version=version,
        conditions={"load average": "0.10"},
    )


def _default_time(cost: Cost) -> float:
    return cost.flops / FLOPS_PER_NS + (cost.bytes_read + cost.bytes_written) / BYTES_PER_NS + CALL_NS


def _source(name: str) -> WeightSource:
    known = name if name in {"gaussian", "power", "product"} else "gaussian"
    return WeightSource(name=name, source=known, inner=TRUE_RANK)


def _record(
    name: str, ranks: Sequence[int], errors: Callable[[str, int, int], float], preparation_s: float
) -> WeightRecord:
    return WeightRecord(
        name=name,
        sha256=f"{zlib.crc32(name.encode()):08x}" * 8,
        method="product" if name == "product" else "exact",
        singular_values=tuple(float(i) ** -0.7 for i in range(1, max(ranks, default=1) + 1)),
        factor_errors={rank: errors(name, 0, rank) for rank in ranks},
        residual=1e-7,
        seconds=preparation_s,
        true_rank=TRUE_RANK if name == "product" else None,
    )


def _error(errors: Callable[[str, int, int], float], weight: str, tokens: int, rank: int) -> OutputError:
    truncation = errors(weight, tokens, rank)
    total = math.hypot(truncation, 2e-7)
    return OutputError(
        weight=weight,
        tokens=tokens,
        rank=rank,
        truncation=truncation,
        rounding=2e-7,
        total=total,
        upper95=1.02 * total,
    )
