"""The host timer, on a clock that the test turns."""

from __future__ import annotations

import pytest

from narrows.bench import _timer
from narrows.bench._timer import HostTimer, Ring


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0
        self.calls = 0
        monkeypatch.setattr(_timer.time, "perf_counter_ns", lambda: self.now)

    def call(self, ns):
        def run():
            self.now += ns
            self.calls += 1

        return run


def test_a_short_call_is_repeated_until_a_sample_lasts_five_milliseconds(monkeypatch):
    clock = Clock(monkeypatch)
    ns, calls = HostTimer(Ring([clock.call(100_000)])).sample()
    assert ns == 100_000
    assert calls == 50


def test_a_long_call_is_timed_once_without_a_warm_up_after_the_first(monkeypatch):
    clock = Clock(monkeypatch)
    timer = HostTimer(Ring([clock.call(2_000_000_000)]))
    timer.sample()
    before = clock.calls
    assert timer.sample() == (2_000_000_000, 1)
    assert clock.calls - before == 1


def test_a_stall_in_one_block_does_not_reach_the_sample_nor_the_next_samples_length(monkeypatch):
    clock = Clock(monkeypatch)
    timer = HostTimer(Ring([clock.call(900_000)]))
    assert timer.sample() == (900_000, 10)
    normal = clock.call(900_000)

    def stalls_once():
        normal()
        if clock.calls == 15:
            clock.now += 64_000_000

    timer._ring.calls = [stalls_once]
    assert timer.sample() == (900_000, 10)
    assert timer.sample() == (900_000, 10)


@pytest.mark.parametrize("size", [2, 7])
def test_cold_working_sets_take_their_turns_in_a_circle_over_all_samples(monkeypatch, size):
    clock = Clock(monkeypatch)
    order = []

    def call(index):
        def run():
            order.append(index)
            clock.now += 1_000_000

        return run

    timer = HostTimer(Ring([call(i) for i in range(size)]))
    timer.output()
    for _ in range(3):
        timer.sample()
    assert order == [i % size for i in range(len(order))]
    assert len(order) > 3 * 5
