"""Ratios of two sides measured round by round."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows._stats import Ratio, median_interval, paired_ratio, power_law, unpaired_ratio


def _samples(median: float, spread: float, count: int, seed: int) -> list[float]:
    return list(median * np.exp(np.random.default_rng(seed).normal(0, spread, count)))


def test_a_ratio_is_the_median_of_per_round_ratios_not_the_ratio_of_medians():
    ratio = paired_ratio([10.0, 100.0, 30.0], [10.0, 10.0, 10.0])
    assert ratio.value == 3.0
    assert paired_ratio([1.0, 4.0, 9.0], [1.0, 1.0, 9.0]).value == 1.0


def test_noise_that_falls_on_both_sides_of_a_round_cancels():
    slow = np.exp(np.random.default_rng(0).normal(0, 0.5, 20))
    ratio = paired_ratio(list(3 * slow), list(slow))
    assert ratio.value == pytest.approx(3.0)
    assert ratio.width < 1e-9
    assert unpaired_ratio(list(3 * slow), list(slow)).width > 0.1


def _busy_in_turns(seed: int) -> list[float]:
    """Return 100 samples of a run of seconds, in which another program works in stretches as long as 25 of them."""
    rng = np.random.default_rng(seed)
    stretches = [(int(rng.exponential(25)) + 1, state % 2) for state in range(seed % 2, 60)]
    busy = np.concatenate([np.full(length, state) for length, state in stretches])[:100]
    return list((1.0 + 0.5 * busy) * np.exp(rng.normal(0, 0.02, 100)))


def test_two_runs_beside_the_same_busy_program_are_not_told_apart():
    runs = [_busy_in_turns(seed) for seed in range(40)]
    pairs = list(pairwise(runs))
    ends = [(median_interval(a), median_interval(b)) for a, b in pairs]
    by_medians = [Ratio(1.0, a[0] / b[1], a[1] / b[0], 100) for a, b in ends]

    assert {unpaired_ratio(*pair).verdict for pair in pairs} == {"tie"}
    assert sum(one.verdict != "tie" for one in by_medians) > 5


@pytest.mark.parametrize(("speedup", "verdict"), [(1.15, "faster"), (0.85, "slower"), (1.03, "tie")])
def test_two_quiet_runs_are_told_apart_beyond_their_spread(speedup, verdict):
    assert unpaired_ratio(_samples(speedup, 0.02, 50, 1), _samples(1.0, 0.02, 50, 2)).verdict == verdict


def test_one_round_says_nothing():
    ratio = paired_ratio([2.0], [1.0])
    assert (ratio.low, ratio.high, ratio.verdict) == (0.0, float("inf"), "unknown")


@pytest.mark.parametrize(("speedup", "verdict"), [(1.5, "faster"), (0.7, "slower"), (1.0, "tie"), (1.015, "tie")])
def test_the_verdict_follows_the_interval_not_the_value(speedup, verdict):
    dense, thin = _samples(speedup, 0.002, 30, 1), _samples(1.0, 0.002, 30, 2)
    assert paired_ratio(dense, thin).verdict == verdict


def test_a_large_ratio_with_a_wide_interval_is_a_tie_that_is_not_known():
    ratio = paired_ratio([0.5, 4.0, 3.0, 0.9, 5.0, 2.0, 0.8, 3.0], [1.0] * 8)
    assert ratio.value > 1.5
    assert ratio.verdict == "tie"
    assert not ratio.is_known_tie


def test_fewer_than_eight_rounds_are_no_verdict_however_clear_they_look():
    assert paired_ratio([3.0] * 7, [1.0] * 7).verdict == "unknown"
    assert paired_ratio([3.0] * 8, [1.0] * 8).verdict == "faster"


@pytest.mark.parametrize(("count", "k"), [(2, 1), (7, 1), (8, 1), (11, 1), (12, 2), (30, 8), (100, 37)])
def test_the_interval_ends_at_the_order_statistics_of_the_binomial_table(count, k):
    """k is the largest with P(Binomial(n, 1/2) < k) <= 0.005, checked with exact fractions."""
    values = [float(v) for v in range(1, count + 1)]
    low, high = median_interval(values)
    assert (low, high) == (k, count + 1 - k)
    if count >= 8:
        tail = [sum(Fraction(comb(count, i), 2**count) for i in range(j)) for j in (k, k + 1)]
        assert tail[0] <= Fraction(5, 1000) < tail[1]


def test_the_same_samples_give_the_same_interval():
    dense, thin = _samples(2.0, 0.1, 15, 3), _samples(1.0, 0.1, 15, 4)
    assert paired_ratio(dense, thin) == paired_ratio(dense, thin)


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says():
    """Binomial: 1000 runs at 99.2 % miss more than 20 times with probability 1e-4; 8 rounds, skewed noise."""
    misses = 0
    for seed in range(1000):
        ratio = paired_ratio(_samples(2.0, 0.5, 8, seed), _samples(1.0, 0.1, 8, seed + 10_000))
        misses += not ratio.low <= 2.0 <= ratio.high
    assert misses <= 20


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(1e3, 1e9), min_size=2, max_size=30),
    st.floats(0.01, 100.0),
)
def test_scaling_one_side_scales_the_ratio(times, factor):
    base = paired_ratio(times, list(reversed(times)))
    scaled = paired_ratio([t * factor for t in times], list(reversed(times)))
    assert scaled.value == pytest.approx(base.value * factor, rel=1e-9)
    assert scaled.high == pytest.approx(base.high * factor, rel=1e-9)


def test_a_power_law_is_found_and_its_interval_excludes_another():
    x = [64, 128, 256, 512, 1024]
    slope = power_law(x, [3e-4 * v**1.3 for v in x])
    assert slope is not None
    assert slope.value == pytest.approx(1.3)
    assert slope.low > 1.29
    assert slope.high < 1.31


def test_a_noisy_law_has_a_wide_interval_and_two_points_have_none():
    slope = power_law([1, 2, 4, 8], [1.0, 5.0, 2.0, 9.0])
    assert slope is not None
    assert slope.low < 0 < slope.high
    assert power_law([1, 2], [1, 2]) is None
    assert power_law([1, 2, 0], [1, 2, 3]) is None
