"""Modelled noise: how long the same call takes at one moment after another. A variant against itself, many times.

A model draws one time a moment; narrows' own order of rounds says which side a moment falls on, its own stopping rule
when there are rounds enough, and its own ratio what the verdict is. There is no difference between the sides here, so
every verdict but "tie" is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from narrows._stats import FEWEST_ROUNDS, TIE, paired_ratio
from narrows.bench._point import Point
from narrows.bench._rounds import is_narrow, shuffled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from narrows._stats import Ratio, Verdict

    Floats = NDArray[np.float64]
    Noise = Callable[[np.random.Generator, int], Floats]
    Order = Callable[[Iterable[Point], int], list[Point]]
    Rule = Callable[[Ratio], Verdict]

MOST_ROUNDS = 60
SIDES = (Point(1, None, "left", "eager", "hot"), Point(1, 1, "same", "eager", "hot"))
SAMPLE_MS, STALLS_MS = 5.0, (8.0, 72.0)


def independent(rng: np.random.Generator, moments: int) -> Floats:
    """Return times that know nothing of each other, 5 % wide."""
    return np.exp(rng.normal(0, 0.05, moments))


def wide(rng: np.random.Generator, moments: int) -> Floats:
    """Return times that know nothing of each other, 30 % wide: few ratios lie within the 2 % of a tie."""
    return np.exp(rng.normal(0, 0.3, moments))


def heavy_tailed(rng: np.random.Generator, moments: int) -> Floats:
    """Return times with slow ones far out: no variance (Student's t, 2 degrees of freedom)."""
    return np.exp(0.03 * np.abs(rng.standard_t(2, moments)))


def autocorrelated(rng: np.random.Generator, moments: int) -> Floats:
    """Return times that remember the one before: an AR(1) process, 0.9, 5 % wide."""
    shocks = rng.normal(0, 0.05 * np.sqrt(1 - 0.9**2), moments)
    found = np.empty(moments, dtype=np.float64)
    state = rng.normal(0, 0.05)
    for moment in range(moments):
        state = 0.9 * state + shocks[moment]
        found[moment] = state
    return np.exp(found)


def drifting(rng: np.random.Generator, moments: int) -> Floats:
    """Return times that grow or fall by up to a half from first to last, under 1 % of other noise."""
    found: Floats = np.exp(np.linspace(0, rng.uniform(-0.5, 0.5), moments) + rng.normal(0, 0.01, moments))
    return found


def wandering(rng: np.random.Generator, moments: int) -> Floats:
    """Return times that take steps of 2 % up or down and do not come back."""
    return np.exp(np.cumsum(rng.normal(0, 0.02, moments)))


def disturbed(rng: np.random.Generator, moments: int) -> Floats:
    """Return times of which stretches of 5 moments on average, half of all, take 1.6 times as long."""
    switches = rng.random(moments) < 0.2
    busy = (np.cumsum(switches) + rng.integers(2)) % 2
    found: Floats = np.where(busy == 1, 1.6, 1.0) * np.exp(rng.normal(0, 0.02, moments))
    return found


def stalled(rng: np.random.Generator, moments: int) -> Floats:
    """Return times of which one in 20 waits 8 to 72 ms for a scheduler, against 5 ms of its own."""
    stalls = np.where(rng.random(moments) < 0.05, rng.uniform(*STALLS_MS, moments), 0.0)
    return np.exp(rng.normal(0, 0.01, moments)) * (1 + stalls / SAMPLE_MS)


def first_is_slower(rng: np.random.Generator, moments: int) -> Floats:
    """Return times of which the first of every round, or the second, is 6 % slower."""
    side = (np.arange(moments) + rng.integers(2)) % 2
    found: Floats = (1 + 0.06 * side) * np.exp(rng.normal(0, 0.02, moments))
    return found


NOISES: dict[str, Noise] = {
    "independent": independent,
    "wide": wide,
    "heavy-tailed": heavy_tailed,
    "autocorrelated": autocorrelated,
    "drifting": drifting,
    "wandering": wandering,
    "disturbed in stretches": disturbed,
    "stalled": stalled,
    "first of a round slower": first_is_slower,
}


def ratio_of(noise: Noise, rng: np.random.Generator, order: Order = shuffled) -> Ratio:
    """Return the ratio of one comparison of a variant with itself.

    Rounds go on until the ratio is known to 5 %, or the time is spent: after 8 to 60 rounds, drawn.
    """
    last = int(rng.integers(FEWEST_ROUNDS, MOST_ROUNDS + 1))
    moments = iter(noise(rng, 2 * last).tolist())
    samples: dict[Point, dict[int, float]] = {side: {} for side in SIDES}
    for number in range(last):
        for side in order(SIDES, number):
            samples[side][number] = next(moments)
        if is_narrow(samples):
            break
    dense, same = (list(samples[side].values()) for side in SIDES)
    return paired_ratio(dense, same)


def value_rule(ratio: Ratio) -> Verdict:
    """Return the verdict of the median alone: a rule without an interval, which is wrong often."""
    return "faster" if ratio.value > 1 + TIE else "tie"


def interval_rule(ratio: Ratio) -> Verdict:
    """Return narrows' verdict."""
    return ratio.verdict


def count_faster(
    name: str, seed: int, tries: int, *, rule: Rule = interval_rule, order: Order = shuffled
) -> tuple[int, int]:
    """Return (how often "faster" was said, comparisons) under one kind of noise."""
    rng = np.random.default_rng([seed, list(NOISES).index(name)])
    verdicts = [rule(ratio_of(NOISES[name], rng, order)) for _ in range(tries)]
    return verdicts.count("faster"), len(verdicts)
