"""Search of what the relaxation leaves open: partial choices layer by layer, without those that cannot lead further.

A partial choice is dropped where a lower bound of everything that goes on from it is above what is looked for, where
the cheapest way on breaks a limit, or where another partial choice costs no more and does no more damage. Layers whose
options differ most come first: then bounds are sharp early.

Letters: K limits, M options of a layer, S partial choices, P sets of prices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from narrows.planning._allocate_relax import ROUNDING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from narrows.planning._allocate_knapsack import Knapsack
    from narrows.planning._allocate_relax import Relaxed

    Floats = npt.NDArray[np.float64]
    Places = npt.NDArray[np.int64]

MOST_PARTIAL = 200_000  # partial choices at one layer; 80 layers of a 70B-shaped model under 3 limits took 5000
NEIGHBOURS = 30  # partial choices that each is compared with, in every order


class TooManyError(Exception):
    """More partial choices than memory is meant to hold."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most


@dataclass(frozen=True, eq=False)
class Open:
    """A layer that is not settled: damage (M,), costs (K, M) and places in the problem (M,) of its options."""

    damage: Floats
    costs: Floats
    places: Places


@dataclass(frozen=True, eq=False)
class Core:
    """A knapsack without the options that are too dear.

    Attributes:
        settled: places of layers with one option left.
        open: the others, in the order in which they are searched.
        prices: (P, K), see `Relaxed.all_prices`.
        weights: (Q, K), see `Relaxed.weights`.
        margin: what rounding may add to a bound.
    """

    problem: Knapsack
    settled: Places
    open: tuple[Open, ...]
    prices: Floats
    weights: Floats
    margin: float

    @classmethod
    def of(cls, problem: Knapsack, relaxed: Relaxed, gap: float) -> Core:
        """Return the options whose excess is at most `gap`."""
        kept = np.flatnonzero((relaxed.excess <= gap + relaxed.margin) & np.isfinite(relaxed.excess))
        groups = np.split(kept, np.flatnonzero(np.diff(problem.layers[kept])) + 1)
        settled = np.array([group[0] for group in groups if len(group) == 1], dtype=np.int64)
        layers = [Open(problem.damage[g], problem.costs[:, g], g) for g in groups if len(g) > 1]
        layers.sort(key=lambda layer: -float(relaxed.prices @ np.ptp(layer.costs, axis=1)))
        return cls(problem, settled, tuple(layers), relaxed.all_prices, relaxed.weights, relaxed.margin)


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        picks: (L,) one place a layer; None: nothing.
        is_complete: no partial choice was dropped for want of room.
    """

    picks: Places | None
    is_complete: bool


@dataclass(frozen=True, eq=False)
class _Partial:
    """S partial choices: damage (S,), costs (K, S), and of each its origin among those of the layer before, (S,),
    and its option there, (S,).
    """

    damage: Floats
    costs: Floats
    origin: Places
    option: Places

    def __getitem__(self, kept: Places) -> _Partial:
        return _Partial(self.damage[kept], self.costs[:, kept], self.origin[kept], self.option[kept])


def search(core: Core, most: float, *, width: int | None) -> Found:
    """Return the choice of least damage whose damage is at most `most`; another that fits, or none, if there is none.

    Args:
        width: partial choices to keep at each layer, those of the lowest bounds; None: all.

    Raises:
        TooManyError: more than `MOST_PARTIAL` without a width.
    """
    problem = core.problem
    if len(core.settled) + len(core.open) <= problem.layers[-1]:
        return Found(None, is_complete=True)  # a layer has no option left
    start = _Partial(
        problem.damage[core.settled].sum(keepdims=True),
        problem.costs[:, core.settled].sum(1, keepdims=True),
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
    )
    levels, is_complete = [start], True
    for layer, rest in zip(core.open, _rests(core), strict=True):
        grown = _grown(levels[-1], layer)
        bounds = rest.bounds(grown)
        kept = np.flatnonzero((bounds <= most + core.margin) & rest.fits(grown))
        kept = kept[_undominated(grown[kept])]
        if width is not None and len(kept) > width:
            kept, is_complete = kept[np.argpartition(bounds[kept], width)[:width]], False
        if len(kept) > MOST_PARTIAL:
            raise TooManyError(MOST_PARTIAL)
        if not len(kept):
            return Found(None, is_complete)
        levels.append(grown[kept])
    return Found(_picks(core, levels) if (levels[-1].costs[:, 0] <= problem.limits).all() else None, is_complete)


def _grown(partial: _Partial, layer: Open) -> _Partial:
    """Return every partial choice with every option of the next layer."""
    num, options = len(partial.damage), len(layer.damage)
    return _Partial(
        (partial.damage[:, None] + layer.damage).ravel(),
        (partial.costs[:, :, None] + layer.costs[:, None, :]).reshape(len(layer.costs), -1),
        np.repeat(np.arange(num), options),
        np.tile(np.arange(options), num),
    )


@dataclass(frozen=True, eq=False)
class _Rest:
    """What the layers still to come add at least.

    Attributes:
        prices: (P, K).
        priced: (P,), their cheapest options' damage and priced costs, less what the limits are worth.
        weights: (Q, K).
        room: (Q,), weighted limits less their smallest weighted costs.
    """

    prices: Floats
    priced: Floats
    weights: Floats
    room: Floats

    def bounds(self, partial: _Partial) -> Floats:
        """Return (S,): no way on does less damage."""
        found: Floats = partial.damage + (self.prices @ partial.costs + self.priced[:, None]).max(0)
        return found

    def fits(self, partial: _Partial) -> npt.NDArray[np.bool_]:
        """Return (S,): whether every weighted limit alone can still be kept."""
        return np.asarray((self.weights @ partial.costs <= self.room[:, None]).all(0))


def _rests(core: Core) -> Iterator[_Rest]:
    """Yield, for each open layer, what comes after it."""
    prices, weights, limits = core.prices, core.weights, core.problem.limits
    priced = _after([(layer.damage + prices @ layer.costs).min(1) for layer in core.open], len(prices))
    least = _after([(weights @ layer.costs).min(1) for layer in core.open], len(weights))
    worth = weights @ limits
    worth[len(limits) :] *= 1 + ROUNDING  # the first K weigh one limit each, and whole numbers add exactly
    for ahead, room in zip(priced - prices @ limits, worth - least, strict=True):
        yield _Rest(prices, ahead, weights, room)


def _after(rows: list[Floats], size: int) -> Floats:
    """Return, for each row, the sum of all after it, (len(rows), size)."""
    return np.cumsum([np.zeros(size), *rows[:0:-1]], axis=0)[::-1] if rows else np.zeros((0, size))


def _undominated(partial: _Partial) -> Places:
    """Return the places of those that no near one beats or equals in everything; with one limit: that none does."""
    places: Places = np.lexsort((partial.damage, *partial.costs[::-1]))
    if len(partial.costs) == 1:
        damage = partial.damage[places]
        least = np.minimum.accumulate(damage)
        return places[np.append(True, damage[1:] < least[:-1])] if len(places) else places
    for order in _orders(len(partial.costs)):
        figures = np.vstack([partial.costs[:, places], partial.damage[places]])[list(order)]
        sorting = np.lexsort(figures[::-1])
        places = places[sorting]
        places = places[~beaten_nearby(figures[:, sorting])]
    return places


def _orders(num_limits: int) -> tuple[tuple[int, ...], ...]:
    """Return orders of costs and damage, each of them first in one."""
    figures = num_limits + 1
    return tuple(tuple((first + step) % figures for step in range(figures)) for first in range(figures))


def beaten_nearby(figures: Floats) -> npt.NDArray[np.bool_]:
    """Return which of some ones, sorted by their first figure, a near earlier one beats or equals in all others."""
    beaten = np.zeros(figures.shape[1], dtype=np.bool_)
    for shift in range(1, min(NEIGHBOURS, len(beaten) - 1) + 1):
        is_beaten = figures[1, :-shift] <= figures[1, shift:]
        for row in figures[2:]:
            is_beaten &= row[:-shift] <= row[shift:]
        beaten[shift:] |= is_beaten
    return beaten


def _picks(core: Core, levels: list[_Partial]) -> Places:
    """Return the choice of least damage by its origins."""
    place = int(levels[-1].damage.argmin())
    found = list(core.settled)
    for layer, level in zip(reversed(core.open), reversed(levels[1:]), strict=True):
        found.append(layer.places[level.option[place]])
        place = int(level.origin[place])
    return np.sort(np.array(found, dtype=np.int64))
