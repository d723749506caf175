"""A ratio of two sides measured round by round: its median, interval and verdict.

A round holds one sample of each side, taken side by side, so slow minutes of a shared machine
fall on both. Needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Verdict = Literal["faster", "slower", "tie", "unknown"]

CONFIDENCE = 0.99
TIE = 0.02  # a lower end must clear this before "faster" is said
FEWEST_ROUNDS = 8  # 1 - 2^(1-8) = 99.2 %: the fewest whose range covers the median at 99 %
MIDDLE = (0.05, 0.95)  # of a run's samples: another run's median lies between them
KNOWN_WIDTH = 0.10  # two times "cannot be told apart" only where their ratio is known this well


@dataclass(frozen=True, slots=True)
class Ratio:
    """value = median of per-round ratios, with a 99 % interval of that median over rounds."""

    value: float
    low: float
    high: float
    num_rounds: int

    @property
    def verdict(self) -> Verdict:
        """Faster only if the lower end is above 1.02, slower only if the upper end is below 1 / 1.02.

        Below 8 rounds no interval covers 99 %: the verdict is "unknown".
        """
        if self.num_rounds < FEWEST_ROUNDS:
            return "unknown"
        if self.low > 1 + TIE:
            return "faster"
        if self.high < 1 / (1 + TIE):
            return "slower"
        return "tie"

    @property
    def width(self) -> float:
        """Width of the interval relative to the value (0.05 is 5 %)."""
        return (self.high - self.low) / self.value if self.value > 0 else float("inf")

    @property
    def is_known_tie(self) -> bool:
        """The two sides take the same time as far as can be told, and that is known to 10 %."""
        return self.verdict == "tie" and self.width < KNOWN_WIDTH


@lru_cache(maxsize=1024)
def _rank_of_end(count: int) -> int:
    """Return the largest k with P(Binomial(count, 1/2) < k) <= 0.5 %, at least 1."""
    allowed = (1 - CONFIDENCE) / 2 * 2.0**count
    below, k = 1.0, 1  # the number of outcomes with fewer than k heads
    while below + comb(count, k) <= allowed:
        below += comb(count, k)
        k += 1
    return k


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 99 % interval of the median: the k-th smallest and the k-th largest value.

    Exact for any distribution (W. R. Thompson 1936; David and Nagaraja, Order Statistics, 7.1): the
    k-th order statistic lies above the median only if fewer than k values lie below it. Below 8
    values it is their range, which covers less than 99 %; of one value nothing is known: (0, inf).

    In simulation (benchmarks/intervals.py) a percentile bootstrap covers 97 to 98 % at 8 rounds, this 99 %.
    """
    if len(values) < 2:
        return 0.0, float("inf")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    k = _rank_of_end(len(ordered))
    return float(ordered[k - 1]), float(ordered[-k])


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Return the median of numerator[i] / denominator[i] with its interval.

    Args:
        numerator, denominator: samples of the same rounds, in the same order; at least one.
    """
    ratios = np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64)
    return Ratio(float(np.median(ratios)), *median_interval(ratios.tolist()), len(ratios))


def unpaired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Return median(numerator) / median(denominator) of two separate runs, with the range it may have.

    For samples that were not taken side by side. A run's samples follow one another within seconds: what lasts
    longer than that, as another program or a change of clock, is in all of them, and the interval of their
    median knows nothing of it. The middle 90 % of a run's samples is taken for where its median may lie in
    another run, and the ends of both runs are divided. With the second of two cores busy half of the time, 64 of
    180 equal rows of repeated runs lay apart by their medians' 99 % intervals, 3 by the middle 80 % and none by this.
    """
    value = float(np.median(numerator) / np.median(denominator))
    num_rounds = min(len(numerator), len(denominator))
    if num_rounds < 2:
        return Ratio(value, 0.0, float("inf"), num_rounds)
    top, bottom = (np.quantile(np.asarray(side, dtype=np.float64), MIDDLE) for side in (numerator, denominator))
    return Ratio(value, float(top[0] / bottom[1]), float(top[1] / bottom[0]), num_rounds)
