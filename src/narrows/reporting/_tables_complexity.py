"""What the formulas promise beside what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.reporting import _cells as cells
from narrows.reporting._table import Cell, Column, Table
from narrows.reporting._text import count_text

if TYPE_CHECKING:
    from narrows.planning import Point
    from narrows.reporting._part import Part


def complexity_table(part: Part) -> Table:
    """Return, at the best rank of each length, the FLOPs of both chains and how much of their ratio was measured."""
    columns = (
        Column("tokens", "Tokens"),
        cells.left("dense_association", "Dense"),
        Column("dense_flops", "Dense FLOPs"),
        Column("rank", "Rank"),
        Column("thin_flops", "Thin FLOPs"),
        Column("flops_ratio", "By formula"),
        Column("speedup", "Measured [99 %]"),
        Column("realised", "Realised"),
        Column("error", f"Error, {part.weights[0]}"),
    )
    rows = tuple(_row(part, point) for point in part.points)
    note = (
        "Realised: measured speedup / ratio of FLOPs. Dense: the faster association, left (X W) X^T or right X (X W)^T."
    )
    return Table(f"complexity_{part.mode}_{part.cache}", f"FLOPs and speedup ({part.name})", columns, rows, note)


def _row(part: Part, point: Point) -> tuple[Cell, ...]:
    taken, _ = part.fastest(point)
    dense, thin = point.dense.row, taken.measured.row
    by_formula = dense.flops / thin.flops
    realised = taken.measured.speedup.value / by_formula
    return (
        cells.number(point.tokens),
        cells.word(dense.variant),
        Cell(dense.flops, count_text(dense.flops)),
        cells.number(taken.rank),
        Cell(thin.flops, count_text(thin.flops)),
        Cell(by_formula, f"{by_formula:.2f}x"),
        cells.interval(taken.measured.speedup),
        Cell(realised, f"{realised:.0%}"),
        cells.error(part.error(part.weights[0], point.tokens, taken.rank)),
    )
