"""Tables of speed: the best rank by length, within an error budget, speedup and time by length and rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._values import Budget
from narrows.reporting import _cells as cells
from narrows.reporting._part import parts
from narrows.reporting._table import Cell as Cell
from narrows.reporting._table import Column as Column
from narrows.reporting._table import Table as Table
from narrows.reporting._text import MISSING, percent_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from narrows._stats import Comparison
    from narrows._values import Choice, Report
    from narrows.planning import Point
    from narrows.reporting._part import Part

SPEEDUP_NOTE = (
    "Speedup: dense time / thin time, against the faster dense association; ~ marks a tie (the 99 % interval "
    "reaches within 2 % of 1), ? fewer than 8 rounds. Error: upper 95 % end of the relative output error."
)


def best_table(report: Report) -> Table:
    """Return the fastest rank for every length, with the error of every weight beside its speedup.

    Among ranks that cannot be told apart in time the largest one is shown, and the ties are named.
    """
    found = parts(report)
    weights = tuple(source.name for source in report.experiment.weights)
    columns = (
        *_part_columns(found),
        Column("tokens", "Tokens"),
        Column("rank", "Best rank"),
        Column("speedup", "Speedup [99 %]"),
        *(Column(f"error_{name}", f"Error, {name}") for name in weights),
        cells.left("use", "Use"),
        cells.left("tied_ranks", "Tied ranks"),
        Column("time_ns", "Time"),
        cells.left("implementation", "By"),
        Column("speedup_over_left", "Over (XW)X^T"),
        Column("share", "Of limit"),
    )
    rows = tuple((*_part_cells(found, part), *_best_row(part, point)) for part in found for point in part.points)
    title = f"Best middle dimension for each sequence length, at any error{_only(found)}"
    return Table("best", title, columns, rows, SPEEDUP_NOTE)


def _part_columns(found: tuple[Part, ...]) -> tuple[Column, ...]:
    """Return the columns that say which group a row belongs to; none where there is one group."""
    return (cells.left("mode", "Mode"), cells.left("cache", "Cache")) if len(found) > 1 else ()


def _part_cells(found: tuple[Part, ...], part: Part) -> tuple[Cell, ...]:
    return (cells.word(part.mode), cells.word(part.cache)) if len(found) > 1 else ()


def _only(found: tuple[Part, ...]) -> str:
    """Return the only group's name for a title."""
    return f" ({found[0].name})" if len(found) == 1 else ""


def _best_row(part: Part, point: Point) -> tuple[Cell, ...]:
    taken, tied = part.fastest(point)
    measured = taken.measured
    others = [rank for rank in tied if rank != taken.rank]
    return (
        cells.number(point.tokens),
        cells.number(taken.rank),
        cells.interval(measured.speedup),
        *(cells.error(part.error(name, point.tokens, taken.rank)) for name in part.weights),
        cells.word(f"rank {taken.rank}" if measured.speedup.verdict == "faster" else "dense"),
        cells.word(", ".join(map(str, others))),
        cells.time(measured.time_ns),
        cells.word(taken.variant),
        cells.ratio(measured.origin_speedup),
        cells.share(measured.share),
    )


def budget_table(report: Report, error: float, *, weights: tuple[str, ...] | None = None) -> Table:
    """Return, for every length and weight, the fastest rank whose error is within a budget; or dense.

    Args:
        error: the largest relative output error (upper 95 % end).
        weights: default all of the report's.
    """
    found = parts(report)
    columns = (
        *_part_columns(found),
        Column("tokens", "Tokens"),
        cells.left("weight", "Weight"),
        cells.left("use", "Use"),
        Column("rank", "Rank"),
        Column("speedup", "Speedup [99 %]"),
        Column("error", "Error"),
    )
    names = weights or tuple(source.name for source in report.experiment.weights)
    rows = tuple(
        (*_part_cells(found, part), *row) for part in found for name in names for row in _budget_rows(part, name, error)
    )
    title = f"Best middle dimension within an error of {percent_text(error)}{_only(found)}"
    return Table("within_budget", title, columns, rows, SPEEDUP_NOTE)


def _budget_rows(part: Part, weight: str, error: float) -> Iterable[tuple[Cell, ...]]:
    for choice in budget_choices(part, weight, error):
        yield (
            cells.number(choice.tokens_from),
            cells.word(weight),
            cells.word("dense" if choice.rank is None else f"rank {choice.rank}"),
            MISSING if choice.rank is None else cells.number(choice.rank),
            choice_speedup(choice),
            cells.error(choice.error),
        )


def budget_choices(part: Part, weight: str, error: float) -> tuple[Choice, ...]:
    """Return what a plan within an error budget takes at each measured length."""
    choices = part.plan(weight, Budget(error=error)).choices
    return tuple(choice for choice in choices if choice.time_ns is not None)


def choice_speedup(choice: Choice) -> Cell:
    """Return a choice's speedup with its interval; dense is 1x by definition."""
    if choice.rank is None:
        return Cell(choice.speedup, "1x")
    return Cell(choice.speedup, f"{choice.speedup:.2f}x [{choice.speedup_low:.2f}, {choice.speedup_high:.2f}]")


def speedup_table(part: Part, tokens: tuple[int, ...] | None = None) -> Table:
    """Return speedup by rank and length, with the error of each weight beside it.

    Args:
        tokens: only these lengths; default all.
    """
    lengths = tokens or part.tokens
    columns = (
        Column("rank", "Rank"),
        *(Column(f"tokens_{t}", f"T={t}") for t in lengths),
        *(Column(f"error_{name}", f"Error, {name}") for name in part.weights),
    )
    rows = tuple(
        (
            cells.number(rank),
            *(_from(part.best.get((t, rank)), lambda c: cells.ratio(c.speedup)) for t in lengths),
            *(cells.error(part.worst_error(name, rank)) for name in part.weights),
        )
        for rank in part.ranks
    )
    note = f"{SPEEDUP_NOTE} Errors here: the largest over the lengths."
    name = _name("speedup", part) + ("" if tokens is None else f"_{tokens[0]}_{tokens[-1]}")
    return Table(name, f"Speedup by rank and sequence length ({part.name})", columns, rows, note)


def time_table(part: Part) -> Table:
    """Return the time of dense and of every rank's fastest implementation by length."""
    dense = (Cell("dense", "dense"), *(cells.time(point.dense.time_ns) for point in part.points))
    thin = _by_rank(part, lambda c: cells.time(c.time_ns))
    return _matrix("time", f"Time of one call ({part.name})", part, (dense, *thin), "Medians.")


def share_table(part: Part) -> Table:
    """Return limit / time by length and rank."""
    dense = (Cell("dense", "dense"), *(cells.share(point.dense.share) for point in part.points))
    thin = _by_rank(part, lambda c: cells.share(c.share))
    note = (
        "Limit: the least time that this machine's measured ceilings allow for the chain's bytes, FLOPs and launches."
    )
    return _matrix("share", f"Share of the limit ({part.name})", part, (dense, *thin), note)


def _by_rank(part: Part, show: Callable[[Comparison], Cell]) -> Iterable[tuple[Cell, ...]]:
    for rank in part.ranks:
        yield (Cell(str(rank), str(rank)), *(_from(part.best.get((t, rank)), show) for t in part.tokens))


def _from(comparison: Comparison | None, show: Callable[[Comparison], Cell]) -> Cell:
    return MISSING if comparison is None else show(comparison)


def _matrix(name: str, title: str, part: Part, rows: tuple[tuple[Cell, ...], ...], note: str) -> Table:
    columns = (Column("rank", "Rank"), *(Column(f"tokens_{t}", f"T={t}") for t in part.tokens))
    return Table(_name(name, part), title, columns, rows, note)


def _name(name: str, part: Part) -> str:
    return f"{name}_{part.mode}_{part.cache}"
