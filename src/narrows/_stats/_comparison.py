"""From a report to comparable rows: each thin row against the dense side of the same conditions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from narrows._stats._doubt import doubts, median
from narrows._stats._ratio import Ratio, paired_ratio

if TYPE_CHECKING:
    from collections.abc import Iterable

    from narrows._values import Cache, Mode, OutputError, Report, Row


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row with everything that is derived from its samples.

    Attributes:
        row: the measured row; its status is "ok".
        dense: the faster association of the dense chain under the same conditions.
        time_ns: median of the row's samples.
        speedup: over `dense`, paired by round (value 1 for that dense row itself).
        origin_speedup: over the origin's association ("left"), None where it was not measured.
        share: limit / time; None without a limit.
        error: of the first weight (None for dense rows).
        doubts: sentences that speak against this row or its dense side.
    """

    row: Row
    dense: Row
    time_ns: float
    speedup: Ratio
    origin_speedup: Ratio | None
    share: float | None
    error: OutputError | None
    doubts: tuple[str, ...]


def dense_row(rows: Iterable[Row]) -> Row | None:
    """Return the fastest measured dense row (smallest median) of rows of one condition."""
    measured = [row for row in rows if row.is_dense and row.samples_ns]
    return min(measured, key=lambda row: median(row.samples_ns), default=None)


@lru_cache(maxsize=1 << 14)  # one document asks for the same ratio up to 30 times, 0.05 ms each
def against(row: Row, dense: Row) -> Ratio | None:
    """Return dense / row over the rounds that hold both; None when no round does."""
    by_round = dict(zip(dense.rounds, dense.samples_ns, strict=True))
    pairs = [(by_round[r], t) for r, t in zip(row.rounds, row.samples_ns, strict=True) if r in by_round]
    if not pairs:
        return None
    return paired_ratio([d for d, _ in pairs], [t for _, t in pairs])


def conditions(report: Report) -> tuple[tuple[int, Mode, Cache], ...]:
    """Return every (tokens, mode, cache) of the report that has rows, in order."""
    return tuple(sorted({(row.tokens, row.mode, row.cache) for row in report.rows}))


def compare_rows(report: Report) -> tuple[Comparison, ...]:
    """Return a comparison for every measured row that has a dense side, in the report's order."""
    found: list[Comparison] = []
    for tokens, mode, cache in conditions(report):
        rows = [row for row in report.rows if (row.tokens, row.mode, row.cache) == (tokens, mode, cache)]
        dense = dense_row(rows)
        if dense is None:
            continue
        left = next((row for row in rows if row.is_dense and row.variant == "left" and row.samples_ns), None)
        for row in rows:
            ratio = against(row, dense) if row.samples_ns else None
            if ratio is None:
                continue
            time_ns = median(row.samples_ns)
            dense_doubts = () if row is dense else tuple(f"dense side: {d}" for d in doubts(dense.samples_ns))
            found.append(
                Comparison(
                    row=row,
                    dense=dense,
                    time_ns=time_ns,
                    speedup=ratio,
                    origin_speedup=against(row, left) if left is not None else None,
                    share=None if row.limit_ns is None else row.limit_ns / time_ns,
                    error=None if row.rank is None else report.error(tokens, row.rank),
                    doubts=doubts(row.samples_ns, limit_ns=row.limit_ns) + dense_doubts,
                )
            )
    return tuple(found)


def too_fast(report: Report) -> tuple[Comparison, ...]:
    """Return the rows that ran faster than their limit: the report's self-check fails if there are any."""
    return tuple(c for c in compare_rows(report) if c.share is not None and c.share > 1)


def fastest(comparisons: Iterable[Comparison]) -> Comparison | None:
    """Return the thin comparison with the largest speedup."""
    return max((c for c in comparisons if not c.row.is_dense), key=lambda c: c.speedup.value, default=None)
