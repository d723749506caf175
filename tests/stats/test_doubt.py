"""What speaks against samples is found, and quiet samples are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from narrows._stats import DOUBTS, doubts, drift, spread, stalled


def _quiet(count: int = 40, at: float = 1e6, seed: int = 0) -> list[float]:
    return list(at * (1 + 0.01 * np.random.default_rng(seed).standard_normal(count)))


def test_quiet_samples_raise_no_doubt():
    assert doubts(_quiet(), limit_ns=0.5e6) == ()


def test_no_samples_raise_no_doubt():
    assert doubts([]) == ()


def test_few_rounds_are_named_with_their_number():
    assert doubts(_quiet(5)) == ("few rounds (5): a 99 % interval needs 8",)


def test_a_spread_over_ten_percent_is_named_with_its_size():
    wide = list(np.linspace(0.8e6, 1.2e6, 21))
    assert spread(wide) == pytest.approx(0.2)
    assert any("spread 20%" in doubt for doubt in doubts(wide))


def test_a_drift_is_named_with_its_factor():
    samples = _quiet(20) + [t * 1.5 for t in _quiet(20, seed=1)]
    assert drift(samples) == pytest.approx(1.5, rel=0.02)
    assert any("drift: the last quarter took 1.5" in doubt for doubt in doubts(samples))


@pytest.mark.parametrize("stall_ns", [8e6, 64e6, 72e6])
def test_a_scheduling_stall_is_found(stall_ns):
    samples = _quiet(30)
    samples[7] += stall_ns
    assert stalled(samples) == 1
    assert any("quantised times: 1 of 30" in doubt for doubt in doubts(samples))


def test_long_calls_with_ordinary_noise_are_not_taken_for_stalls():
    assert stalled(_quiet(30, at=2e9)) == 0


def test_a_row_faster_than_the_limit_is_named_with_both_times():
    found = doubts(_quiet(at=1.5e6), limit_ns=2e6)
    assert any("faster than the limit: 1" in doubt and "2000.0 us" in doubt for doubt in found)


def test_every_doubt_begins_with_the_name_of_its_kind():
    samples = list(np.linspace(0.8e6, 1.2e6, 21))
    samples[20] = samples[0] + 64e6
    found = [*doubts(samples, limit_ns=2e6), *doubts([1.0] * 3)]
    assert sorted(k for k in DOUBTS for d in found if d.startswith(k)) == sorted(DOUBTS)
    assert len(found) == len(DOUBTS)
