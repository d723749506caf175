"""The few figures that stand at the top of the page, each with the error that pays for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from narrows.reporting._charts import BUDGET
from narrows.reporting._text import error_text, interval_text

if TYPE_CHECKING:
    from narrows.reporting._charts import Group


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure: what it is, the number, and where it was measured with what error."""

    name: str
    figure: str
    detail: str


def headline(groups: tuple[Group, ...]) -> tuple[Tile, ...]:
    """Return the fastest point at any error, then the fastest within 1 % for every weight."""
    if not groups:
        return ()
    weights = groups[0].weights
    anything = _best(groups, weights[0], error=None)
    tiles = [] if anything is None else [Tile("Fastest, at any error", *anything)]
    for weight in weights:
        within = _best(groups, weight, error=BUDGET)
        none = ("stay dense", f"no measured rank is faster within {BUDGET:.0%}")
        tiles.append(Tile(f"{weight}, error at most {BUDGET:.0%}", *(within or none)))
    return tuple(tiles)


def _best(groups: tuple[Group, ...], weight: str, *, error: float | None) -> tuple[str, str] | None:
    """Return figure and detail of the largest speedup that is really faster; None when there is none."""
    found = [
        (c.speedup, tokens, rank, group, group.errors.get((weight, tokens, rank)))
        for group in groups
        for (tokens, rank), c in group.best.items()
    ]
    fit = [f for f in found if error is None or (f[4] is not None and f[4] <= error)]
    fit = [f for f in fit if error is None or f[0].verdict == "faster"]
    if not fit:
        return None
    ratio, tokens, rank, group, its_error = max(fit, key=lambda f: f[0].value)
    where = f"{tokens} tokens, rank {rank}" + (f", {group.name.lower()}" if len(groups) > 1 else "")
    cost = f"error not known for {weight}" if its_error is None else f"error {error_text(its_error)} ({weight})"
    shown = interval_text(ratio)
    figure, _, bounds = shown.partition(" ")
    return figure, f"{bounds} at {where}; {cost}"
