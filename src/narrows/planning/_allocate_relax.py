"""The linear relaxation of a multiple-choice knapsack: prices of its limits, a lower bound, and what breaks limits.

Letters: N options, L layers, K limits, P sets of prices, Q sets of weights.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.errors import ResourceError

if TYPE_CHECKING:
    import numpy.typing as npt

    from narrows.planning._allocate_knapsack import Knapsack

    Floats = npt.NDArray[np.float64]

ROUNDING = 1e-11  # relative; float64 adds a thousand terms to 1e-13
SHIFTS = (0.002, 0.008, 0.03, 0.1, 0.3, 0.6)  # by which prices are changed for further bounds
WELL_SCALED = (1e1, 1e7)  # the solver's tolerances are absolute, 1e-7
FIRST_VALUE = 1e5  # of half the options' damage; the least is often 1e-2 to 1e-4 of that
MOST_SCALINGS = 6
LARGEST_COST = 1e6  # of limits; what costs more breaks its limit anyway, and the solver refuses 1e15
LARGEST_DAMAGE = (
    1e12  # of a scaled damage; the solver takes 1e20 for infinite, and a smaller damage keeps the bound valid
)
INFEASIBLE = 1e-6  # share of the limits; ten times the solver's tolerance


@dataclass(frozen=True, eq=False)
class Relaxed:
    """What the relaxation says.

    Attributes:
        prices: (K,), damage a unit of cost.
        all_prices: (P, K), those and others near them; every one gives a lower bound.
        weights: (Q, K) >= 0; a weighted sum of the limits is a limit too, and shows sooner that not all can be kept.
        excess: (N,) >= 0, by how much an option is dearer than its layer's cheapest one at `prices`; inf where no
            choice with that option keeps the limits.
        cheapest: (L,), that option.
        bound: no choice has less damage.
        margin: what rounding may add to a bound.
        is_exact: the cheapest options' damage is the bound.
    """

    prices: Floats
    all_prices: Floats
    weights: Floats
    excess: Floats
    cheapest: npt.NDArray[np.int64]
    bound: float
    margin: float
    is_exact: bool

    def gap_of(self, num_options: int) -> float:
        """Return the excess within which so many options lie beyond each layer's cheapest; inf: there are fewer."""
        place = len(self.cheapest) + num_options
        return math.inf if place >= len(self.excess) else float(np.partition(self.excess, place)[place])

    def widened(self, gap: float) -> float:
        """Return a gap three times as wide that holds more options; inf where there are no more."""
        more = self.excess[np.isfinite(self.excess) & (self.excess > gap + self.margin)]
        return max(3 * gap, float(more.min())) if more.size else math.inf


def relax(problem: Knapsack) -> Relaxed | None:
    """Return the relaxation; None: not even a mixture of options keeps every limit."""
    singles = np.eye(len(problem.limits))
    if len(np.unique(problem.layers[~_breaks(problem, singles)])) <= problem.layers[-1]:
        return None
    tightest = _tightest(problem)
    prices = None if tightest is None else _prices(problem)
    if tightest is None or prices is None:
        return None
    least, excess = _excess(problem.damage + prices @ problem.costs, problem.layers)
    cheapest = _first_zero(excess, problem.layers)
    paid = float(prices @ problem.limits)
    bound = float(least.sum()) - paid
    margin = ROUNDING * (float(np.abs(least).sum()) + paid)
    weights = np.vstack([singles, _around(tightest, problem.limits)])
    return Relaxed(
        prices=prices,
        all_prices=_around(prices, problem.limits),
        weights=weights,
        excess=np.where(_breaks(problem, weights), np.inf, excess),
        cheapest=cheapest,
        bound=bound,
        margin=margin,
        is_exact=float(problem.damage[cheapest].sum()) <= bound + margin,
    )


def _excess(figures: Floats, layers: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the least figure of every layer, (..., L), and by how much every option is above it, (..., N)."""
    least = np.minimum.reduceat(figures, np.flatnonzero(np.diff(layers, prepend=-1)), axis=-1)
    return least, figures - least[..., layers]


def _first_zero(excess: Floats, layers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the first option of each layer that has no excess."""
    places = np.flatnonzero(excess <= 0)
    return places[np.unique(layers[places], return_index=True)[1]]


def _breaks(problem: Knapsack, weights: Floats) -> npt.NDArray[np.bool_]:
    """Return which options break a weighted limit, (Q, K), even if all other layers cost as little as they can."""
    least, excess = _excess(weights @ problem.costs, problem.layers)
    worth = weights @ problem.limits
    room = worth - least.sum(-1) + ROUNDING * np.abs(worth)
    return np.asarray((excess > room[:, None]).any(0))


def _prices(problem: Knapsack) -> Floats | None:
    """Return the dual values of the limits; solved again in another unit of damage where the first fits badly."""
    harmful = problem.damage[problem.damage > 0]
    scale = FIRST_VALUE / (float(np.median(harmful)) * (problem.layers[-1] + 1)) if harmful.size else 1.0
    for _ in range(MOST_SCALINGS):
        solved = _linear_program(problem, np.minimum(problem.damage * scale, LARGEST_DAMAGE))
        if solved is None:
            return None
        prices, value = solved
        if value <= 0 or WELL_SCALED[0] <= value <= WELL_SCALED[1]:
            break
        scale *= 1e3 / value
    found: Floats = prices / scale
    return found


def _tightest(problem: Knapsack) -> Floats | None:
    """Return the weights whose sum of limits is hardest to keep; None: it cannot be kept."""
    if len(problem.limits) == 1:
        return np.ones(1)
    solved = _linear_program(problem, np.zeros_like(problem.damage), is_elastic=True)
    return None if solved is None or solved[1] > INFEASIBLE else solved[0]


def _linear_program(problem: Knapsack, damage: Floats, *, is_elastic: bool = False) -> tuple[Floats, float] | None:
    """Return dual values and the least damage; elastic: the least share by which all limits must be moved."""
    linprog, csr_array = _scipy()
    num_options, num_limits = len(damage), len(problem.limits)
    num_layers = int(problem.layers[-1]) + 1
    units = np.maximum(problem.limits, 1.0)
    moved = -np.ones((num_limits, 1)) if is_elastic else np.zeros((num_limits, 1))
    solved = linprog(
        np.append(damage, 1.0),
        A_ub=np.hstack([np.minimum(problem.costs / units[:, None], LARGEST_COST), moved]),
        b_ub=problem.limits / units,
        A_eq=csr_array((np.ones(num_options), (problem.layers, np.arange(num_options))), (num_layers, num_options + 1)),
        b_eq=np.ones(num_layers),
        bounds=[(0, None)] * num_options + [(None, None) if is_elastic else (0, 0)],
        method="highs",
    )
    if solved.x is None:
        return None
    return np.maximum(-solved.ineqlin.marginals, 0.0) / units, float(solved.fun)


def _scipy() -> tuple[Any, Any]:
    """Return linprog and csr_array, which take 0.2 s to import.

    Raises:
        ResourceError: scipy is not installed.
    """
    try:
        from scipy.optimize import linprog
        from scipy.sparse import csr_array
    except ImportError:
        raise ResourceError(
            "choosing ranks over a model needs scipy, which is not installed: pip install 'narrows[models]'."
        ) from None
    return linprog, csr_array


def _around(prices: Floats, limits: Floats) -> Floats:
    """Return prices near the best ones: for a partial choice, which has its own best prices, they bound better."""
    paid = prices * limits
    free = np.where(prices > 0, 0.0, paid.sum() / np.maximum(limits, 1.0))
    found = [prices, np.zeros_like(prices)]
    for shift in SHIFTS:
        for signs in itertools.product((-1, 0, 1), repeat=len(prices)):
            ways = np.array(signs)
            if ways.any():
                found.append(prices * (1 - shift) ** -ways + np.where(ways > 0, shift * free, 0.0))
    return np.array(found)
