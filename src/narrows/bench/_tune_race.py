"""cuBLAS and the finalists side by side, round by round, until the ratios are known."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

from narrows._stats import FEWEST_ROUNDS, median, paired_ratio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from narrows._stats import Ratio
    from narrows.bench._timer import Timer

MOST_ROUNDS = 32
TARGET_WIDTH = 0.02  # of the 99 % interval: what is called a tie

K = TypeVar("K")


def race(timers: Mapping[K, Timer], base: K) -> tuple[dict[K, float], dict[K, Ratio]]:
    """Return the median time in ns of each, and the ratio base time / its time.

    A round is one sample of each in an order drawn anew. At least 8 rounds (below, no interval covers 99 %), at
    most 32, or until every interval is narrower than 2 %.

    Args:
        timers: what is compared.
        base: the one that the others are compared with.
    """
    samples: dict[K, list[float]] = {name: [] for name in timers}
    order = list(timers)
    shuffle = random.Random(0).shuffle  # noqa: S311 (an order, not a secret)
    for done in range(1, MOST_ROUNDS + 1):
        shuffle(order)
        for name in order:
            samples[name].append(timers[name].sample()[0])
        if done >= FEWEST_ROUNDS and all(paired_ratio(samples[base], s).width < TARGET_WIDTH for s in samples.values()):
            break
    ratios = {name: paired_ratio(samples[base], times) for name, times in samples.items()}
    return {name: median(times) for name, times in samples.items()}, ratios
