"""Measured models beside the predicted frontier: where each lies, and which of them others beat."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows._values import ModelPoint
    from narrows.planning import ModelFrontierPoint

DENSE = "dense"
SAME_BYTES = 0.02  # of the bytes that the frontier has at the same kept share: else it is another way to save

Against = Literal["speedup", "bytes"]


@dataclass(frozen=True, slots=True)
class Placed:
    """A measured model and what the frontier predicts at its kept share.

    Attributes:
        damage, speedup: predicted, linear between two points; None where it is not a choice of forms, or not known.
        perplexity_ratio: measured perplexity / that of "dense"; None where one of them was not measured.
    """

    point: ModelPoint
    damage: float | None
    speedup: float | None
    perplexity_ratio: float | None

    @property
    def is_choice(self) -> bool:
        """A choice of forms with something saved: said to be one or on the frontier, and not dense."""
        return (self.damage is not None or self.point.is_choice) and self.point.label != DENSE


def placed(points: Sequence[ModelFrontierPoint], measured: Sequence[ModelPoint]) -> tuple[Placed, ...]:
    """Return the measured models in their order."""
    dense = next((one.perplexity for one in measured if one.label == DENSE), None)
    found = []
    for one in measured:
        damage, speedup = _predicted(points, one)
        ratio = None if dense is None or one.perplexity is None else one.perplexity / dense
        found.append(Placed(one, damage, speedup, ratio))
    return tuple(found)


def _predicted(points: Sequence[ModelFrontierPoint], measured: ModelPoint) -> tuple[float | None, float | None]:
    for high, low in pairwise([*points[:1], *points]):
        if not low.kept <= measured.kept <= high.kept:
            continue
        share = (high.kept - measured.kept) / (high.kept - low.kept) if high.kept > low.kept else 0.0
        num_bytes = high.num_bytes + share * (low.num_bytes - high.num_bytes)
        if abs(measured.num_bytes - num_bytes) > SAME_BYTES * num_bytes:
            return None, None
        known = high.speedup is not None and low.speedup is not None
        speedup = high.speedup + share * (low.speedup - high.speedup) if known else None  # type: ignore[operator]
        return high.damage + share * (low.damage - high.damage), speedup
    return None, None


def better(one: Placed, other: Placed, against: Against) -> bool:
    """Return whether `one` is at least as good and as fast (or small) as `other`, and better in one of the two."""
    quality, cost = _figures(one, against), _figures(other, against)
    if quality is None or cost is None:
        return False
    return quality[0] <= cost[0] and quality[1] <= cost[1] and quality != cost


def _figures(one: Placed, against: Against) -> tuple[float, float] | None:
    """Return (perplexity ratio, time or bytes), both to be small."""
    if one.perplexity_ratio is None:
        return None
    if against == "bytes":
        return one.perplexity_ratio, float(one.point.num_bytes)
    return None if one.point.speedup is None else (one.perplexity_ratio, 1 / one.point.speedup)


def beaten_by(one: Placed, all_of_them: Sequence[Placed], against: Against) -> Placed | None:
    """Return the fastest (or smallest) measured model that beats one; None: none does."""
    found = [other for other in all_of_them if better(other, one, against)]
    return min(found, key=lambda other: (_figures(other, against) or (0.0, 0.0))[1], default=None)
