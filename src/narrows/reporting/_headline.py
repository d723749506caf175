"""The few figures that stand at the top of the page, each with the error that pays for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from narrows.reporting._charts import fastest_within
from narrows.reporting._sections_speed import ERROR_BUDGET
from narrows.reporting._text import error_text, interval_text

if TYPE_CHECKING:
    from narrows.planning import Candidate
    from narrows.reporting._part import Part


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure: what it is, the number, and where it was measured with what error."""

    name: str
    figure: str
    detail: str


def headline(found: tuple[Part, ...]) -> tuple[Tile, ...]:
    """Return the fastest point at any error, then the fastest within the error budget for every weight."""
    if not found:
        return ()
    anything = [(part, part.fastest(point)[0]) for part in found for point in part.points]
    tiles = [_tile("Fastest, at any error", found[0].weights[0], anything)]
    for weight in found[0].weights:
        within = [
            (part, taken)
            for part in found
            for tokens in part.tokens
            if (taken := fastest_within(part, tokens, weight, ERROR_BUDGET)) is not None
        ]
        name = f"{weight}, error at most {ERROR_BUDGET:.0%}"
        dense = Tile(name, "stay dense", f"no measured rank is faster within {ERROR_BUDGET:.0%}")
        tiles.append(_tile(name, weight, within) if within else dense)
    return tuple(tiles)


def _tile(name: str, weight: str, candidates: list[tuple[Part, Candidate]]) -> Tile:
    """Return the largest speedup of some candidates with its place and the weight's error there."""
    part, best = max(candidates, key=lambda pair: pair[1].measured.speedup.value)
    tokens = best.measured.row.tokens
    error = part.error(weight, tokens, best.rank)
    cost = "error not known" if error is None else f"error {error_text(error)}"
    figure, _, bounds = interval_text(best.measured.speedup).partition(" ")
    return Tile(name, figure, f"{bounds} at {tokens} tokens, rank {best.rank}, {part.name}; {cost} ({weight})")
