"""What was done to a model's layers, as a value that prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEADS = ("layer", "was", "is", "rank", "numbers before", "after", "reason")


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """What became of one layer.

    Attributes:
        was: class and sizes, as "Linear 576 -> 1536".
        form: what it is now.
        rank: None for dense.
        before, after: numbers of the weight, without bias.
        reason: why.
        is_refused: the plan asked for another form, and the layer could not take it.
    """

    layer: str
    was: str
    form: str
    rank: int | None
    before: int
    after: int
    reason: str
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of every layer that a plan names, in the plan's order."""

    layers: tuple[LayerSummary, ...]

    @property
    def refused(self) -> tuple[LayerSummary, ...]:
        """Layers that stayed dense against the plan."""
        return tuple(one for one in self.layers if one.is_refused)

    @property
    def kept(self) -> float:
        """Numbers after / before, over all these layers; 1.0 where there is none."""
        before = sum(one.before for one in self.layers)
        return sum(one.after for one in self.layers) / before if before else 1.0

    def __str__(self) -> str:
        rows = [_row(one) for one in self.layers]
        widths = [max(map(len, column)) for column in zip(_HEADS, *rows, strict=True)]
        return "\n".join([*(_line(row, widths) for row in [_HEADS, *rows]), self._total()])

    def _total(self) -> str:
        changed = sum(one.form != "dense" for one in self.layers)
        before, after = sum(one.before for one in self.layers), sum(one.after for one in self.layers)
        refused = f"; {len(self.refused)} refused" if self.refused else ""
        return (
            f"{changed} of {len(self.layers)} layers factorised, {before:,} -> {after:,} numbers ({self.kept:.1%})"
            f"{refused}"
        )


def _row(one: LayerSummary) -> tuple[str, ...]:
    form = f"{one.form} (refused)" if one.is_refused else one.form
    rank = "" if one.rank is None else str(one.rank)
    return one.layer, one.was, form, rank, f"{one.before:,}", f"{one.after:,}", one.reason


def _line(row: Iterable[str], widths: Iterable[int]) -> str:
    cells = zip(_HEADS, row, widths, strict=True)
    return "  ".join(
        cell.rjust(width) if head in {"rank", "numbers before", "after"} else cell.ljust(width)
        for head, cell, width in cells
    ).rstrip()
