"""Tables of what a rank costs: errors, memory, preparation; and what speaks against a row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from narrows._stats import compare_rows
from narrows.reporting import _cells as cells
from narrows.reporting._table import Cell, Column, Table
from narrows.reporting._text import MISSING, bytes_text, count_text, time_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from narrows._stats import Comparison
    from narrows._values import OutputError, Report, Row, WeightRecord
    from narrows.planning import Candidate, Point
    from narrows.reporting._part import Part


def weights_table(report: Report) -> Table:
    """Return every weight with the error of every rank, side by side: nobody takes the speedup for free."""
    ranks = report.experiment.ranks
    columns = (
        cells.left("weight", "Weight"),
        cells.left("method", "Factorised by"),
        Column("preparation_s", "Preparation"),
        Column("true_rank", "True rank"),
        *(Column(f"error_rank_{rank}", f"R={rank}") for rank in ranks),
    )
    rows = tuple(
        (
            cells.word(weight.name),
            cells.word(weight.method),
            Cell(weight.seconds, time_text(weight.seconds * 1e9)),
            MISSING if weight.true_rank is None else cells.number(weight.true_rank),
            *(cells.error(_worst(report, weight.name, rank)) for rank in ranks),
        )
        for weight in report.weights
    )
    note = "Relative output error, upper 95 % end, the largest over the measured lengths."
    if any(source.is_product and source.source != "file" for source in report.experiment.weights):
        note += (
            " A product is compared with its formed matrix, as the origin did: multiplied operand by operand, as a "
            "model would run it, it already is the thin chain of its true rank."
        )
    return Table("weights", "Error by weight and rank", columns, rows, note)


def _worst(report: Report, weight: str, rank: int) -> float | None:
    found = (e.upper95 for e in report.errors if (e.weight, e.rank) == (weight, rank))
    return max(found, default=None)


def error_table(report: Report) -> Table:
    """Return the error of every weight and rank: of the weight itself, then truncation, rounding and total."""
    columns = (
        cells.left("weight", "Weight"),
        Column("rank", "Rank"),
        Column("factor_error", "Weight's own"),
        Column("truncation", "Truncation"),
        Column("rounding", "Rounding"),
        Column("total", "Total"),
        Column("upper95", "Upper 95 %"),
    )
    rows = tuple(row for weight in report.weights for row in _error_rows(report, weight))
    note = "Output errors: at the length where the upper 95 % end is largest. Truncation: exact arithmetic."
    return Table("error", "Error by weight and rank, in parts", columns, rows, note)


def _error_rows(report: Report, weight: WeightRecord) -> Iterator[tuple[Cell, ...]]:
    for rank in report.experiment.ranks:
        found: list[OutputError] = [e for e in report.errors if (e.weight, e.rank) == (weight.name, rank)]
        if not found:
            continue
        worst = max(found, key=lambda e: e.upper95)
        figures = (weight.factor_errors.get(rank), worst.truncation, worst.rounding, worst.total, worst.upper95)
        yield (cells.word(weight.name), cells.number(rank), *(cells.error(figure) for figure in figures))


def memory_table(part: Part) -> Table:
    """Return peak memory as measured, and by formula in brackets, by length and rank."""
    columns = (Column("rank", "Rank"), *(Column(f"tokens_{t}", f"T={t}") for t in part.tokens))
    dense = (Cell("dense", "dense"), *(_memory(point.dense.row) for point in part.points))
    thin = tuple(
        (Cell(str(rank), str(rank)), *(_memory_of(part.best.get((t, rank))) for t in part.tokens))
        for rank in part.ranks
    )
    note = "Measured peak (operands, intermediates and result by formula). A bare bracket: the peak was not measured."
    title = f"Memory of one call ({part.name})"
    return Table(f"memory_{part.mode}_{part.cache}", title, columns, (dense, *thin), note)


def _memory_of(comparison: Comparison | None) -> Cell:
    return MISSING if comparison is None else _memory(comparison.row)


def _memory(row: Row) -> Cell:
    formula = f"({bytes_text(row.memory_bytes)})"
    if row.peak_memory_bytes is None:
        return Cell(row.memory_bytes, formula)
    return Cell(row.peak_memory_bytes, f"{bytes_text(row.peak_memory_bytes)} {formula}")


def preparation_table(part: Part) -> Table:
    """Return after how many calls the factorisation of each weight has paid for itself."""
    columns = (
        Column("tokens", "Tokens"),
        Column("rank", "Rank"),
        Column("speedup", "Speedup [99 %]"),
        cells.left("weight", "Weight"),
        Column("error", "Error"),
        Column("preparation_s", "Preparation"),
        Column("saved_ns", "Saved a call"),
        Column("calls", "Pays after"),
    )
    rows = tuple(
        _preparation_row(part, point, part.fastest(point)[0], weight)
        for point in part.points
        for weight in part.report.weights
    )
    note = "At the best rank of each length; - where it is not faster than dense beyond doubt, and so never pays."
    title = f"Preparation and after how many calls it pays ({part.name})"
    return Table(f"preparation_{part.mode}_{part.cache}", title, columns, rows, note)


def _preparation_row(part: Part, point: Point, taken: Candidate, weight: WeightRecord) -> tuple[Cell, ...]:
    saved = point.dense.time_ns - taken.measured.time_ns
    pays = taken.measured.speedup.verdict == "faster" and saved > 0
    calls = math.ceil(weight.seconds * 1e9 / saved) if pays else None
    return (
        cells.number(point.tokens),
        cells.number(taken.rank),
        cells.interval(taken.measured.speedup),
        cells.word(weight.name),
        cells.error(part.error(weight.name, point.tokens, taken.rank)),
        Cell(weight.seconds, time_text(weight.seconds * 1e9)),
        cells.time(saved) if pays else MISSING,
        MISSING if calls is None else Cell(calls, f"{count_text(calls)} calls"),
    )


def doubts_table(report: Report) -> Table:
    """Return every row with something against it: doubts of its samples, or why it has none."""
    columns = (*_row_columns(), cells.left("status", "Status"), cells.left("doubt", "Doubt or reason"))
    doubtful = [(c.row, "measured", "; ".join(c.doubts)) for c in compare_rows(report) if c.doubts]
    absent = [(row, row.status, row.reason) for row in report.rows if row.status != "ok"]
    rows = tuple((*_row_cells(row), cells.word(status), cells.word(text)) for row, status, text in doubtful + absent)
    note = "" if rows else "No row has a doubt, and every row was measured."
    return Table("doubts", "Doubts", columns, rows, note)


def _row_columns() -> tuple[Column, ...]:
    return (
        cells.left("mode", "Mode"),
        cells.left("cache", "Cache"),
        Column("tokens", "Tokens"),
        Column("rank", "Rank"),
        cells.left("variant", "Variant"),
    )


def _row_cells(row: Row) -> tuple[Cell, ...]:
    rank = Cell(None, "dense") if row.rank is None else cells.number(row.rank)
    return (cells.word(row.mode), cells.word(row.cache), cells.number(row.tokens), rank, cells.word(row.variant))


def rows_table(report: Report) -> Table:
    """Return every measured row with all its figures: what --csv and --json are for."""
    weights = tuple(source.name for source in report.experiment.weights)
    columns = (
        *_row_columns(),
        Column("time_ns", "Time"),
        Column("num_rounds", "Rounds"),
        Column("speedup", "Speedup"),
        Column("speedup_low", "Low"),
        Column("speedup_high", "High"),
        Column("speedup_over_left", "Over (XW)X^T"),
        *(Column(f"error_{name}", f"Error, {name}") for name in weights),
        Column("share", "Of limit"),
        Column("limit_ns", "Limit"),
        Column("flops", "FLOPs"),
        Column("bytes_read", "Read"),
        Column("bytes_written", "Written"),
        Column("memory_bytes", "Memory by formula"),
        Column("peak_memory_bytes", "Peak memory"),
        Column("launches", "Launches"),
        cells.left("doubts", "Doubts"),
    )
    rows = tuple(_full_row(report, c, weights) for c in compare_rows(report))
    return Table("rows", "Every measured row", columns, rows)


def _full_row(report: Report, c: Comparison, weights: tuple[str, ...]) -> tuple[Cell, ...]:
    row = c.row
    found = [None if row.rank is None else report.error(row.tokens, row.rank, name) for name in weights]
    bounds = (c.speedup.low, c.speedup.high)
    return (
        *_row_cells(row),
        cells.time(c.time_ns),
        cells.number(len(row.samples_ns)),
        cells.ratio(c.speedup),
        *(Cell(bound, f"{bound:.3f}") for bound in bounds),
        cells.ratio(c.origin_speedup),
        *(cells.error(None if e is None else e.upper95) for e in found),
        cells.share(c.share),
        cells.time(row.limit_ns),
        Cell(row.flops, count_text(row.flops)),
        cells.size(row.bytes_read),
        cells.size(row.bytes_written),
        cells.size(row.memory_bytes),
        cells.size(row.peak_memory_bytes),
        cells.number(row.launches),
        cells.word("; ".join(c.doubts)),
    )
