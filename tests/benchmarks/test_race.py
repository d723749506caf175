"""A race takes turns, keeps to its time, and gives no time to what is wrong."""

from __future__ import annotations

import benchmark_fakes as fakes
import pytest
import torch

from _race import FEWEST_ROUNDS, MOST_ROUNDS, Expected, Racer, race, take_rounds
from narrows._oracle import dense_linear_bound

X, W = torch.randn(6, 8), torch.randn(5, 8)
ROWS = torch.arange(6)


def expected(count=4):
    reference = dense_linear_bound(X, W)
    return {number: [Expected(ROWS, reference)] for number in (0, count - 1)}


def racer(name="dense", call=lambda _: X @ W.mT):
    return Racer(name, None, call, 4, expected())


def test_each_round_holds_one_sample_of_every_racer_in_alternating_order():
    order = []

    class Noted(fakes.HostCalls):
        def sample(self):
            order.append(self._call)
            return 1.0

    racers = [racer("one", lambda _: X @ W.mT), racer("two", lambda _: (W @ X.mT).mT)]
    race(racers, Noted, clock=fakes.Clock())
    assert [len(each.samples_ns) for each in racers] == [FEWEST_ROUNDS] * 2
    one, two = (each.call for each in racers)
    assert order[:6] == [one, two, two, one, one, two]


@pytest.mark.parametrize(("end", "rounds"), [(0, FEWEST_ROUNDS), (30, FEWEST_ROUNDS + 29), (1e9, MOST_ROUNDS)])
def test_time_cuts_rounds_but_never_below_twelve(end, rounds):
    """The clock is looked at once a round from the twelfth on, and is a second later each time."""
    live = [racer()]
    live[0].start(fakes.HostCalls)
    assert take_rounds(live, end=end, clock=fakes.Clock()) == rounds
    assert len(live[0].samples_ns) == rounds


def test_seconds_of_rounds_start_when_everything_is_prepared():
    one = racer()
    race([one], fakes.HostCalls, end=5.0, seconds=30.0, clock=fakes.Clock())
    assert len(one.samples_ns) == FEWEST_ROUNDS + 29


def test_correctness_is_checked_even_when_no_time_is_left():
    wrong = racer("wrong", lambda _: X @ W.mT + 1)
    race([wrong], fakes.HostCalls, end=-1.0, clock=fakes.Clock())
    assert wrong.status == "wrong result"
    assert wrong.samples_ns == []
    assert "times its derived bound" in wrong.reason


def test_a_result_that_turns_wrong_while_it_is_timed_loses_its_times():
    calls = []

    def late(number):
        calls.append(number)
        return X @ W.mT + (0 if len(calls) <= 4 else 1)

    one = racer("late", late)
    race([one], fakes.HostCalls, clock=fakes.Clock())
    assert (one.status, one.samples_ns) == ("wrong result", [])


def test_a_nan_in_a_call_that_is_not_compared_is_found():
    def spotted(number):
        result = X @ W.mT
        return fakes.nan_like(result) if number == 2 else result

    one = racer("spotted", spotted)
    race([one], fakes.HostCalls, clock=fakes.Clock())
    assert (one.status, one.worst) == ("wrong result", float("inf"))


def test_a_racer_that_raises_is_a_failed_row_and_the_others_go_on():
    def broken(_):
        raise RuntimeError("no kernel image\nmore lines")

    racers = [racer("broken", broken), racer("dense")]
    race(racers, fakes.HostCalls, clock=fakes.Clock())
    assert (racers[0].status, racers[0].reason) == ("failed", "RuntimeError: no kernel image")
    assert len(racers[1].samples_ns) == FEWEST_ROUNDS


def test_both_results_of_a_call_are_checked():
    good, bad = (X @ W.mT), (X @ W.mT + 1)
    both = Racer("both", 1, lambda _: (good, bad), 4, {0: [Expected(ROWS, dense_linear_bound(X, W))] * 2})
    race([both], fakes.HostCalls, clock=fakes.Clock())
    assert both.status == "wrong result"


@pytest.mark.gpu
def test_a_captured_graph_replays_into_poisoned_memory_and_is_timed():
    from _race import Captured

    x, w = X.cuda(), W.cuda()
    captured = Captured(lambda _: x @ w.mT, 4)
    captured.run()
    assert len({result.data_ptr() for (result,) in captured.results}) == 4
    assert all(torch.equal(result, captured.results[0][0]) for (result,) in captured.results)
    assert captured.sample() > 0


@pytest.mark.gpu
def test_a_graph_that_forgets_an_element_is_found_wrong():
    from _race import Captured

    x, w = X.cuda(), W.cuda()

    def forgetful(_):
        out = torch.empty(6, 5, device="cuda")
        torch.mm(x[:5], w.mT, out=out[:5])
        return out

    one = Racer("forgetful", None, forgetful, 4, {0: [Expected(ROWS.cuda(), dense_linear_bound(x, w))]})
    race([one], Captured)
    assert one.status == "wrong result"


@pytest.mark.gpu
def test_host_launched_calls_are_checked_and_timed():
    from _race import HostLaunched

    x, w = X.cuda(), W.cuda()
    launched = HostLaunched(lambda _: x @ w.mT, 4)
    launched.run()
    assert len(launched.results) == 4
    assert launched.sample() > 0
