"""What layers may become, as whole numbers: options, their damage, and the limits of a budget.

Sums of whole numbers below 2^53 are exact in float64, so whether a limit is kept is never a matter of rounding. Times
and damages are counted in a power of two that is fine enough for 50 bits in sum.

Letters: N options of all layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from narrows.errors import InputError, NonFiniteError
from narrows.planning._allocate_knapsack import Knapsack, Solution, solve
from narrows.planning._allocate_units import layers_of, stacks_of, units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from narrows._values import LayerOption, LayerOptions, ModelBudget

    Floats = npt.NDArray[np.float64]
    Places = npt.NDArray[np.int64]

LimitName = Literal["perplexity", "keep", "max_bytes", "speedup"]
SUM_BITS = 50


@dataclass(frozen=True, eq=False)
class Limit:
    """One limit of a budget.

    Attributes:
        name, asked: as the budget has it.
        costs: (N,) whole numbers.
        most: that their sum may be.
    """

    name: LimitName
    asked: float
    costs: Floats
    most: float

    def __str__(self) -> str:
        return f"{self.name}={self.asked:.10g}"

    def at_most(self, most: float) -> Limit:
        """Return the same limit at another height."""
        return replace(self, most=most)


@dataclass(frozen=True, eq=False)
class Offers:
    """N options that may be chosen; dense is the first of every layer.

    Attributes:
        layers: as given, with the options that may not be chosen.
        options: N.
        owners: (N,) ascending: the place of the layer whose option it is.
        damage: (N,) whole numbers.
        damage_unit: nats a token.
        stacks: places of layers that may share a projection; see `units`.
    """

    layers: tuple[LayerOptions, ...]
    options: tuple[LayerOption, ...]
    owners: Places
    damage: Floats
    damage_unit: float
    stacks: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, layers: Sequence[LayerOptions], *, is_time_only: bool = False, needs_time: bool = False) -> Offers:
        """Return what may be chosen.

        Args:
            layers: the first option of each is dense.
            is_time_only: an option that is not faster than dense beyond a tie has no use.
            needs_time: an option without a measured time has no use.
        """
        kept = [
            (place, option)
            for place, layer in enumerate(layers)
            for option in layer.options
            if option.form == "dense"
            or not ((is_time_only and is_slow(option)) or (needs_time and option.time_ns is None))
        ]
        owners = np.array([place for place, _ in kept], dtype=np.int64)
        damage, unit = _whole([option.damage for _, option in kept], owners, 0.0, np.ceil)
        return cls(tuple(layers), tuple(option for _, option in kept), owners, damage, unit, stacks_of(layers))

    @cached_property
    def dense(self) -> Places:
        """(L,) place of every layer's dense option."""
        return np.flatnonzero(np.diff(self.owners, prepend=-1))

    def sum_of(self, figures: Floats, picks: Places) -> float:
        """Return the sum over a choice."""
        return float(figures[picks].sum())

    def least(self, figures: Floats, limits: Sequence[Limit]) -> Solution | None:
        """Return the choice with the least sum of `figures`; None: no choice keeps the limits."""
        costs = np.array([limit.costs for limit in limits]).reshape(len(limits), len(figures))
        rows = units(self, np.vstack([figures, costs]))
        if not limits:
            return Solution(layers_of(self, [one[figures[one].sum(1).argmin()] for one in rows]), np.zeros(0))
        damage = np.concatenate([figures[one].sum(1) for one in rows])
        sums = np.concatenate([costs[:, one].sum(-1) for one in rows], axis=1)
        owners = np.repeat(np.arange(len(rows)), [len(one) for one in rows])
        solution = solve(Knapsack(damage, sums, np.array([one.most for one in limits]), owners))
        if solution is None:
            return None
        firsts = np.searchsorted(owners, np.arange(len(rows)))
        picked = [one[pick] for one, pick in zip(rows, solution.picks - firsts, strict=True)]
        return Solution(layers_of(self, picked), solution.prices)


def is_slow(option: LayerOption) -> bool:
    """Return whether an option was measured and is not faster than dense beyond a tie."""
    return option.is_faster is not None and not option.is_faster


def _whole(
    values: Sequence[float], owners: Places, more: float, rounded: Callable[[Floats], Floats]
) -> tuple[Floats, float]:
    """Return values in whole units and the unit, a power of two; the largest sum, with `more`, takes 50 bits."""
    figures = np.array(values, dtype=np.float64)
    most = np.maximum.reduceat(figures, np.flatnonzero(np.diff(owners, prepend=-1))).sum() + more
    unit = 2.0 ** (math.frexp(most)[1] - SUM_BITS) if most > 0 else 1.0
    return rounded(figures / unit), unit


def limits_of(offers: Offers, budget: ModelBudget, other_ns: float | None) -> tuple[Limit, ...]:
    """Return the budget's limits on numbers, bytes and time, in this order."""
    found = []
    if budget.keep is not None:
        found.append(_keep(offers, budget.keep))
    if budget.max_bytes is not None:
        found.append(Limit("max_bytes", budget.max_bytes, _figures(offers, "bytes"), float(budget.max_bytes)))
    if budget.speedup is not None and other_ns is not None:
        found.append(_speedup(offers, budget.speedup, other_ns))
    return tuple(found)


def damage_limit(offers: Offers, perplexity: float) -> Limit:
    """Return the limit on damage: the perplexity ratio is its exponential."""
    return Limit("perplexity", perplexity, offers.damage, math.floor(math.log1p(perplexity) / offers.damage_unit))


def cost_of(offers: Offers, name: Literal["keep", "speedup"]) -> Limit:
    """Return numbers or time without a limit, to be made least."""
    costs = _figures(offers, "numbers") if name == "keep" else _times(offers, 0.0)[0]
    return Limit(name, math.nan, costs, math.inf)


def _figures(offers: Offers, field: Literal["numbers", "bytes"]) -> Floats:
    return np.array([getattr(option, field) for option in offers.options], dtype=np.float64)


def _keep(offers: Offers, keep: float) -> Limit:
    numbers = _figures(offers, "numbers")
    total = offers.sum_of(numbers, offers.dense)
    most = math.floor(keep * total) + 1
    while most / total > keep:
        most -= 1
    return Limit("keep", keep, numbers, float(most))


def _times(offers: Offers, other_ns: float) -> tuple[Floats, float]:
    """Return times in whole units, and the unit in ns; where a form is not faster beyond a tie, at least dense's."""
    times = [option.time_ns or 0.0 for option in offers.options]
    dense = [times[place] for place in offers.dense]
    proven = [
        max(time, dense[owner]) if is_slow(option) else time
        for time, option, owner in zip(times, offers.options, offers.owners, strict=True)
    ]
    return _whole(proven, offers.owners, other_ns, np.round)


def _speedup(offers: Offers, speedup: float, other_ns: float) -> Limit:
    """Return (other + dense) / (other + chosen) >= speedup as a limit on the chosen times."""
    times, unit = _times(offers, other_ns)
    other = round(other_ns / unit)
    before = other + int(offers.sum_of(times, offers.dense))
    after = math.ceil(before / Fraction(speedup)) + 1
    while after > 0 and before / after < speedup:
        after -= 1
    return Limit("speedup", speedup, times, float(after - other))


def check_options(layers: Sequence[LayerOptions]) -> None:
    """Raise where the options are not what `allocate` needs.

    Raises:
        InputError: no layers, one twice, or one whose first option is not dense with a damage of 0; stacks as
            `stacks_of`.
        NonFiniteError: a damage or time that is no finite number >= 0.
    """
    if not layers:
        raise InputError("options is empty: there is no layer to choose a form for.")
    seen: set[str] = set()
    for layer in layers:
        if layer.layer in seen:
            raise InputError(f"options: {layer.layer!r} is there twice. Give each layer once.")
        seen.add(layer.layer)
        if not layer.options or layer.options[0].form != "dense" or layer.options[0].damage != 0:
            raise InputError(f"options: the first option of {layer.layer!r} must be dense, with damage=0.0.")
        _check_figures(layer)
    stacks_of(layers)


def _check_figures(layer: LayerOptions) -> None:
    for option in layer.options:
        for name, value in (("damage", option.damage), ("time_ns", option.time_ns)):
            if value is not None and not 0 <= value < math.inf:
                raise NonFiniteError(
                    f"options: {name}={value} of {layer.layer!r}, {option}, must be a finite number >= 0. "
                    "Leave the option out, or make its figures again."
                )


def check_times(layers: Iterable[LayerOptions], budget: ModelBudget, other_ns: float | None) -> None:
    """Raise where a speedup is asked for and a time that it needs was not measured.

    Raises:
        InputError: `other_ns`, or a dense layer's time.
    """
    if budget.speedup is None:
        return
    if other_ns is None:
        raise InputError(
            f"speedup={budget.speedup:g} needs other_ns, the time that no choice changes: measure it, or leave "
            "speedup out of the budget."
        )
    untimed = [layer.layer for layer in layers if layer.options[0].time_ns is None]
    if untimed:
        raise InputError(
            f"speedup={budget.speedup:g} needs measured times, and {len(untimed)} dense layers have none (the first "
            f"is {untimed[0]!r}). Measure them, or leave speedup out of the budget."
        )
