"""The multiple-choice knapsack: one option for every layer, the least total damage, every limit kept. Exact.

The dual of its linear relaxation prices every limit. At those prices each layer alone has a cheapest option, their
sum is a lower bound, and an option that is dearer than its layer's cheapest by more than the gap between that bound
and a known choice is in no better choice (Dyer, Kayal and Walker 1984). What is left is small and is searched layer
by layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from narrows.errors import ResourceError
from narrows.planning._allocate_relax import relax
from narrows.planning._allocate_search import Core, TooManyError, search

if TYPE_CHECKING:
    import numpy.typing as npt

    from narrows.planning._allocate_relax import Relaxed

FIRST_OPTIONS = 40  # options a limit beyond the cheapest ones that the first search looks at
FIRST_WIDTH = 300  # partial choices that the first search keeps at each layer
GIVEN_UP = 1e-3  # of the damage: what an unfinished proof may leave open; damages are estimates, good to about 30 %


@dataclass(frozen=True, eq=False)
class Knapsack:
    """N options of L layers under K limits; whole numbers below 2^53, in sum too, so that float64 adds them exactly.

    Attributes:
        damage: (N,), what is made least.
        costs: (K, N).
        limits: (K,), of the sums of costs.
        layers: (N,) ascending, each of 0..L-1 at least once: whose option it is.
    """

    damage: npt.NDArray[np.float64]
    costs: npt.NDArray[np.float64]
    limits: npt.NDArray[np.float64]
    layers: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Solution:
    """A choice of the least damage.

    Attributes:
        picks: (L,), one option a layer.
        prices: (K,), damage that one more unit of each cost would save, at the relaxation's optimum.
    """

    picks: npt.NDArray[np.int64]
    prices: npt.NDArray[np.float64]


def solve(problem: Knapsack) -> Solution | None:
    """Return a choice of the least damage; None: no choice keeps every limit.

    Where the proof would take too many partial choices, which calls for damages that are nearly proportional to
    costs, it ends as soon as the choice is within 0.1 % of the least damage.

    Raises:
        ResourceError: not even that could be shown.
    """
    relaxed = relax(problem)
    if relaxed is None:
        return None
    if relaxed.is_exact and _fits(problem, relaxed.cheapest):
        return Solution(relaxed.cheapest, relaxed.prices)
    try:
        picks = _search(problem, relaxed)
    except TooManyError as fault:
        raise ResourceError(
            f"the exact choice among {len(problem.damage)} options of {len(relaxed.cheapest)} layers under "
            f"{len(problem.limits)} limits needs more than {fault.most} partial choices. Offer fewer ranks a layer, "
            "or give the budget fewer limits."
        ) from None
    return None if picks is None else Solution(picks, relaxed.prices)


def _fits(problem: Knapsack, picks: npt.NDArray[np.int64]) -> bool:
    return bool((problem.costs[:, picks].sum(1) <= problem.limits).all())


def _search(problem: Knapsack, relaxed: Relaxed) -> npt.NDArray[np.int64] | None:
    """Return the best choice; None: there is none."""
    first = _first(problem, relaxed)
    if first is None:
        return None
    picks, proven_gap = first
    gap = float(problem.damage[picks].sum()) - relaxed.bound
    better = gap - float(np.gcd.reduce(problem.damage.astype(np.int64)))
    if gap <= proven_gap or better < -relaxed.margin:
        return picks
    try:
        found = search(Core.of(problem, relaxed, better), relaxed.bound + better, width=None)
    except TooManyError:
        if gap > GIVEN_UP * float(problem.damage[picks].sum()):
            raise
        return picks
    return picks if found.picks is None else found.picks


def _first(problem: Knapsack, relaxed: Relaxed) -> tuple[npt.NDArray[np.int64], float] | None:
    """Return a good choice and the gap within which nothing is better; None: there is no choice."""
    gap, width = relaxed.gap_of(FIRST_OPTIONS * len(problem.limits)), FIRST_WIDTH
    while True:
        found = search(Core.of(problem, relaxed, gap), relaxed.bound + gap, width=width)
        if found.picks is not None:
            return found.picks, gap if found.is_complete else -math.inf
        if gap < math.inf:
            gap = relaxed.widened(gap)
        elif found.is_complete:
            return None
        else:
            width *= 4
