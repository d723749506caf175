"""Tuned choices as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._stats import Ratio
from narrows.reporting._cells import interval, left, number, time, word
from narrows.reporting._table import Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows.kernels.tuned import Candidate, Config, Known, Silicon, Tiles


def choices_table(found: Sequence[Known], silicon: Silicon) -> Table:
    """Return what runs each measured call, by how much it is faster than cuBLAS, and where that is known from."""
    columns = (
        left("kind", "Kind"),
        left("shape", "Shape"),
        Column("rank", "Rank"),
        Column("tokens", "Tokens"),
        left("dtype", "Dtype"),
        left("mode", "Mode"),
        left("runs", "Runs"),
        Column("time_ns", "Time"),
        Column("speedup", "Over cuBLAS"),
        left("origin", "Known"),
        Column("config", "Sizes", "left", is_detail=True),
        Column("rejected", "Not raced", "left", is_detail=True),
        Column("differences", "Measured with", "left", is_detail=True),
    )
    note = f"On {silicon}. Stale: measured with other versions, a hint until it is measured again."
    return Table("choices", "Tuned choices", columns, tuple(_row(known) for known in found), note)


def _row(known: Known) -> tuple[Cell, ...]:
    entry = known.entry
    best = entry.candidates[entry.winner]
    rejected = "; ".join(f"{name}: {each.reason}" for name, each in entry.candidates.items() if each.reason)
    # The winner's own ratio says nothing where it is cuBLAS: then the best of the others is shown.
    others = [each for each in entry.candidates.values() if each.config is not None and each.checked]
    shown = best if best.config is not None else max(others, key=lambda each: each.speedup, default=None)
    return (
        word(entry.kind),
        word(_shape(known)),
        number(entry.rank),
        number(entry.tokens),
        word(entry.dtype),
        word(entry.mode),
        word(entry.winner),
        time(best.median_ns),
        interval(None if shown is None else _ratio(shown)),
        word(f"{known.origin}, stale" if known.is_stale else known.origin),
        word("" if best.config is None else _sizes(best.config)),
        word(rejected),
        word(", ".join(known.differences)),
    )


def _shape(known: Known) -> str:
    entry = known.entry
    heads = f" x {entry.heads}" if entry.heads > 1 else ""
    other = f", U={entry.other_tokens}" if entry.other_tokens else ""
    return f"{entry.in_features}x{entry.out_features}{heads}{other}"


def _ratio(candidate: Candidate) -> Ratio:
    return Ratio(candidate.speedup, candidate.low, candidate.high, candidate.rounds)


def _sizes(config: Config) -> str:
    rest = [f"overlap {config.overlap}", *(() if config.reduce == "kernel" else (f"reduce on {config.reduce}",))]
    rest += [] if config.projection == "own" else [f"projected by {config.projection}"]
    return f"{_tiles(config.project)} -> {_tiles(config.second)}, {', '.join(rest)}"


def _tiles(tiles: Tiles) -> str:
    split = f" / {tiles.split}" if tiles.split > 1 else ""
    return f"{tiles.m}x{tiles.n}x{tiles.k}{split} ({tiles.warps} warps, {tiles.stages} stages)"
