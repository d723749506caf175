"""Rounds of every form of a layer side by side, with the time shared among layers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from narrows._machine import available_bytes, machine
from narrows._stats import FEWEST_ROUNDS, doubts, median, paired_ratio
from narrows.bench._layers_calls import Forms
from narrows.bench._layers_grid import options, rank_step
from narrows.bench._layers_record import LayerTime
from narrows.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from narrows.bench._layers_grid import Option
    from narrows.bench._timer import Timer

Shape = tuple[int, int]  # D, E
Group = tuple[int, int, int]  # D, E, rows
Progress = Callable[[str, int, int], None]

COLD_SETS = 3  # weights rotate over 3x the last-level cache
MOST_ROUNDS = 32
TARGET_WIDTH = 0.02  # of a ratio's 99 % interval: what is called a tie
COARSEST = 16  # times the finest step
DENSE: Option = ("dense", None)


def measured(
    groups: Sequence[Group],
    asked: Mapping[Shape, tuple[Option, ...]] | None,
    *,
    dtype: str,
    device: str,
    seconds: float,
    progress: Progress | None,
) -> Iterator[tuple[Group, tuple[LayerTime, ...]]]:
    """Yield each group with its times as soon as they are known.

    Args:
        groups: what is measured.
        asked: the options of each shape; None: the finest grid that the time allows.
        dtype, device, seconds, progress: as in `layer_times`.
    """
    if not groups:
        return
    end = time.perf_counter() + seconds
    forms = _forms(groups, dtype, device)
    with _current(device):
        costs = {group: _sample_seconds(forms, group) for group in groups}
    if asked is None:
        asked = _affordable(costs, seconds)
    left = {(D, E, T): cost * len(asked[D, E]) for (D, E, T), cost in costs.items()}
    for position, group in enumerate(groups):
        now = time.perf_counter()
        deadline = now + (end - now) * left[group] / sum(left.values())
        del left[group]
        tell = _teller(progress, group, position, len(groups))
        with _current(device):
            times = _times(forms, group, asked[group[:2]], deadline, tell)
        yield group, times


def _current(device: str) -> AbstractContextManager[object]:
    """Return what makes a GPU the current one: events are recorded on the current one's stream."""
    return nullcontext() if device == "cpu" else torch.cuda.device(device)


def _forms(groups: Sequence[Group], dtype: str, device: str) -> Forms:
    """Return the pool of weights for these groups.

    Raises:
        ResourceError: it does not fit the free memory.
    """
    kind: torch.dtype = getattr(torch, dtype)
    cold = COLD_SETS * machine(device).last_level_cache_bytes
    largest = max(D * E for D, E, _ in groups)
    # The check's weights in float64, and x with two results beside the pool.
    needed = cold + largest * (2 * kind.itemsize + 8) + 3 * max(T * max(D, E) for D, E, T in groups) * kind.itemsize
    free = available_bytes(device)
    if needed > free:
        raise ResourceError(
            f"measuring layers on {device} needs {needed / 1e6:.0f} MB ({COLD_SETS} x the last-level cache, so that "
            f"weights are cold), but {free / 1e6:.0f} MB are free. Free some memory."
        )
    return Forms(cold_bytes=cold, largest=largest, dtype=kind, device=torch.device(device))


@torch.inference_mode()
def _sample_seconds(forms: Forms, group: Group) -> float:
    """Return how long one sample of the dense layer takes; those of the other forms take about as long or less."""
    D, E, rows = group
    timer = forms.timer(forms.inputs(rows, D), E, *DENSE)
    timer.sample()
    began = time.perf_counter()
    timer.sample()
    return time.perf_counter() - began


def _affordable(costs: Mapping[Group, float], seconds: float) -> dict[Shape, tuple[Option, ...]]:
    """Return the finest grid whose 8 rounds fit the time, or the coarsest."""
    coarseness = 1
    while True:
        found = {(D, E): options(D, E, rank_step(D, E, coarseness=coarseness)) for D, E, _ in costs}
        needed = FEWEST_ROUNDS * sum(cost * len(found[group[:2]]) for group, cost in costs.items())
        if needed <= seconds or coarseness >= COARSEST:
            return found
        coarseness *= 2


@torch.inference_mode()
def _times(
    forms: Forms, group: Group, wanted: Sequence[Option], deadline: float, tell: Callable[[int], None]
) -> tuple[LayerTime, ...]:
    """Return the times of one group, dense first."""
    D, E, rows = group
    x = forms.inputs(rows, D)
    timers = {option: forms.timer(x, E, *option) for option in wanted}
    samples = _rounds(timers, deadline, tell)
    found = []
    for form, rank in wanted:
        own = samples[form, rank]
        ratio = paired_ratio(samples[DENSE], own)
        found.append(LayerTime(D, E, form, rank, rows, median(own), ratio.value, ratio.low, ratio.high, doubts(own)))
    return tuple(found)


def _rounds(timers: Mapping[Option, Timer], deadline: float, tell: Callable[[int], None]) -> dict[Option, list[float]]:
    """Return the samples of each, one a round."""
    samples: dict[Option, list[float]] = {option: [] for option in timers}
    order = list(timers)
    shuffle = random.Random(0).shuffle  # noqa: S311 (an order, not a secret)
    for done in range(1, MOST_ROUNDS + 1):
        shuffle(order)
        for option in order:
            samples[option].append(timers[option].sample()[0])
        tell(done)
        if done >= FEWEST_ROUNDS and (time.perf_counter() >= deadline or _is_narrow(samples)):
            break
    return samples


def _is_narrow(samples: Mapping[Option, list[float]]) -> bool:
    return all(paired_ratio(samples[DENSE], own).width < TARGET_WIDTH for own in samples.values())


def _teller(progress: Progress | None, group: Group, position: int, count: int) -> Callable[[int], None]:
    """Return what is called after each round; rounds beyond the eighth do not count as progress."""
    D, E, rows = group

    def tell(done: int) -> None:
        if progress is not None:
            here = position * FEWEST_ROUNDS + min(done, FEWEST_ROUNDS)
            progress(f"timing layers: {D} -> {E} at {rows} rows", here, count * FEWEST_ROUNDS)

    return tell
