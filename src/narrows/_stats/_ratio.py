"""A ratio of two sides measured round by round: its median, interval and verdict.

A round holds one sample of each side, taken side by side, so slow minutes of a shared machine
fall on both. Needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Verdict = Literal["faster", "slower", "tie"]

CONFIDENCE = 0.99
TIE = 0.02  # a lower end must clear this before "faster" is said
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Ratio:
    """value = median of per-round ratios, with a 99 % bootstrap interval over rounds."""

    value: float
    low: float
    high: float
    num_rounds: int

    @property
    def verdict(self) -> Verdict:
        """Faster only if the lower end is above 1.02, slower only if the upper end is below 1 / 1.02."""
        if self.low > 1 + TIE:
            return "faster"
        if self.high < 1 / (1 + TIE):
            return "slower"
        return "tie"

    @property
    def width(self) -> float:
        """Width of the interval relative to the value (0.05 is 5 %)."""
        return (self.high - self.low) / self.value if self.value > 0 else float("inf")


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float], *, seed: int = 0) -> Ratio:
    """Return the median of numerator[i] / denominator[i] with its interval.

    Args:
        numerator, denominator: samples of the same rounds, in the same order; at least one.
        seed: of the bootstrap; the same samples give the same interval.

    The percentile bootstrap of the median (Efron 1979). With n rounds it cannot say more than
    [min, max], which covers the true median with probability 1 - 2^(1-n): below 8 rounds that is
    less than 99 %. With a single round nothing is known: the interval is (0, inf).
    """
    ratios = np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64)
    value = float(np.median(ratios))
    if len(ratios) < 2:
        return Ratio(value, 0.0, float("inf"), len(ratios))
    rng = np.random.default_rng(seed)
    medians = np.median(ratios[rng.integers(0, len(ratios), (RESAMPLES, len(ratios)))], axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return Ratio(value, float(low), float(high), len(ratios))


def unpaired_ratio(numerator: Sequence[float], denominator: Sequence[float], *, seed: int = 0) -> Ratio:
    """Return median(numerator) / median(denominator) of two separate runs, with its interval.

    For samples that were not taken side by side: each side is resampled alone, so the interval
    is wider than a paired one and drift between the runs is not removed.
    """
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    value = float(np.median(top) / np.median(bottom))
    num_rounds = min(len(top), len(bottom))
    if num_rounds < 2:
        return Ratio(value, 0.0, float("inf"), num_rounds)
    rng = np.random.default_rng(seed)
    tops = np.median(top[rng.integers(0, len(top), (RESAMPLES, len(top)))], axis=1)
    bottoms = np.median(bottom[rng.integers(0, len(bottom), (RESAMPLES, len(bottom)))], axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(tops / bottoms, [tail, 1 - tail])
    return Ratio(value, float(low), float(high), num_rounds)
