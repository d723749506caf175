"""The whole frontier of a model: least total damage against numbers, bytes or time. Letters: L layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from narrows.errors import InputError
from narrows.planning._allocate_offers import check_options, is_slow
from narrows.planning._allocate_units import stacks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from narrows._values import LayerOption, LayerOptions

CostName = Literal["numbers", "bytes", "time"]
Choice = tuple["LayerOption", ...]  # one option for each of the layers that choose together
LARGEST_DAMAGE = 700.0  # nats; the exponential of more is no float64


@dataclass(frozen=True, slots=True)
class ModelFrontierPoint:
    """The totals of one choice of forms for all layers.

    Attributes:
        kept: numbers kept / numbers of the dense linears.
        num_bytes: kept in place of the linears.
        speedup: predicted from the times of single layers; None where one of them, or `other_ns`, is not known.
        damage: expected growth of the loss, nats a token.
        dense_layers: layers that stay dense.
    """

    kept: float
    num_bytes: int
    speedup: float | None
    damage: float
    dense_layers: int

    @property
    def perplexity_ratio(self) -> float:
        """Predicted perplexity / dense perplexity; inf where it is no float64."""
        return math.exp(self.damage) if self.damage <= LARGEST_DAMAGE else math.inf


def model_frontier(
    options: Sequence[LayerOptions],
    *,
    cost: CostName = "numbers",
    points: int = 33,
    other_ns: float | None = None,
) -> tuple[ModelFrontierPoint, ...]:
    """Return choices of least damage, from dense to the smallest, spread evenly over the cost.

    Every point is exact: no choice has less damage at its cost. They are those that some price of the cost leads to
    (Everett 1963), the corners of the convex hull; between two of them `allocate` may find a choice above the line
    that joins them, never one below it.

    Args:
        options: what every layer could become; the first option of each is dense.
        cost: what the damage is traded for; "time" leaves out options that are not faster than dense beyond a tie.
        points: at most so many.
        other_ns: time that no choice changes, for the predicted speedup.

    Raises:
        InputError: no layers, fewer than 2 points, or cost="time" where a dense layer has no measured time.
    """
    check_options(options)
    if points < 2:
        raise InputError(f"points={points} must be at least 2: dense and the smallest choice.")
    if cost == "time":
        _check_timed(options)
    dense = [layer.options[0] for layer in options]
    path = _path(options, cost)
    totals = np.cumsum([sum(_cost(one, cost) for one in dense), *(-s.saved for s in path)])
    return tuple(_points(dense, path, _spread(totals, points), other_ns))


@dataclass(frozen=True, slots=True)
class _Step:
    """A layer, or all layers of a stack, take cheaper options: places, options, what that saves, damage for a unit."""

    layers: tuple[int, ...]
    options: Choice
    saved: float
    slope: float


def _check_timed(options: Sequence[LayerOptions]) -> None:
    untimed = [layer.layer for layer in options if layer.options[0].time_ns is None]
    if untimed:
        raise InputError(
            f"cost='time' needs measured times, and {len(untimed)} dense layers have none (the first is "
            f"{untimed[0]!r}). Measure them, or ask for cost='numbers'."
        )


def _cost(option: LayerOption, cost: CostName) -> float:
    figure = {"numbers": option.numbers, "bytes": option.bytes, "time": option.time_ns}[cost]
    assert figure is not None, "options without a time were left out"
    return float(figure)


def _path(options: Sequence[LayerOptions], cost: CostName) -> list[_Step]:
    """Return every layer's steps down its convex hull, cheapest damage first: after each, the whole is on the hull."""
    steps = [step for layers, choices in _units(options, cost) for step in _hull(layers, choices, cost)]
    return sorted(steps, key=lambda step: step.slope)


def _units(options: Sequence[LayerOptions], cost: CostName) -> Iterator[tuple[tuple[int, ...], list[Choice]]]:
    """Yield layers that choose together with their choices, dense first; corners of hulls alone make a sum's hull."""
    stacks = stacks_of(options)
    in_stacks = {place for stack in stacks for place in stack}
    useful: list[list[Choice]] = [[(one,) for one in _useful(layer, cost) if not one.stack] for layer in options]
    for place, choices in enumerate(useful):
        if place not in in_stacks:
            yield (place,), choices
    for stack in stacks:
        own = [[useful[place][0], *(one.options for one in _hull((place,), useful[place], cost))] for place in stack]
        apart = [tuple(option for choice in each for option in choice) for each in product(*own)]
        shared = [[one for one in _useful(options[place], cost) if one.stack] for place in stack]
        yield stack, [*apart, *_together(shared)]


def _together(shared: Sequence[Sequence[LayerOption]]) -> Iterator[Choice]:
    """Yield the shared forms that every layer of a stack offers, the same for each."""
    others = [{(one.form, one.rank): one for one in options} for options in shared[1:]]
    for one in shared[0]:
        if all((one.form, one.rank) in options for options in others):
            yield (one, *(options[one.form, one.rank] for options in others))


def _useful(layer: LayerOptions, cost: CostName) -> list[LayerOption]:
    if cost != "time":
        return list(layer.options)
    dense, *others = layer.options
    return [dense, *(one for one in others if one.time_ns is not None and not is_slow(one))]


def _hull(layers: tuple[int, ...], choices: Sequence[Choice], cost: CostName) -> Iterator[_Step]:
    """Yield the corners after dense; each is the cheaper choice with the least damage for what it saves."""
    costs = np.array([sum(_cost(option, cost) for option in choice) for choice in choices])
    damage = np.array([sum(option.damage for option in choice) for choice in choices])
    here = 0
    while (cheaper := np.flatnonzero(costs < costs[here])).size:
        saved = costs[here] - costs[cheaper]
        slopes = (damage[cheaper] - damage[here]) / saved
        best = np.lexsort((-saved, slopes))[0]
        here = int(cheaper[best])
        yield _Step(layers, choices[here], float(saved[best]), float(slopes[best]))


def _spread(totals: npt.NDArray[np.float64], points: int) -> list[int]:
    """Return the places of totals nearest to evenly spread ones, first and last among them."""
    wanted = np.linspace(totals[0], totals[-1], points)
    return sorted({int(np.abs(totals - one).argmin()) for one in wanted[1:]} | {0})


def _points(
    dense: list[LayerOption], path: list[_Step], places: list[int], other_ns: float | None
) -> Iterator[ModelFrontierPoint]:
    chosen = list(dense)
    done = 0
    for place in places:
        for step in path[done:place]:
            for layer, option in zip(step.layers, step.options, strict=True):
                chosen[layer] = option
        done = place
        yield _point(dense, chosen, other_ns)


def _point(dense: list[LayerOption], chosen: list[LayerOption], other_ns: float | None) -> ModelFrontierPoint:
    return ModelFrontierPoint(
        kept=sum(one.numbers for one in chosen) / sum(one.numbers for one in dense),
        num_bytes=sum(one.bytes for one in chosen),
        speedup=_speedup(dense, chosen, other_ns),
        damage=sum(one.damage for one in chosen),
        dense_layers=sum(one.form == "dense" for one in chosen),
    )


def _speedup(dense: list[LayerOption], chosen: list[LayerOption], other_ns: float | None) -> float | None:
    before, after = (_time(options) for options in (dense, chosen))
    if other_ns is None or before is None or after is None:
        return None
    return (other_ns + before) / (other_ns + after)


def _time(options: list[LayerOption]) -> float | None:
    known = [option.time_ns for option in options if option.time_ns is not None]
    return sum(known) if len(known) == len(options) else None
