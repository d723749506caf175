"""The noise part: rates with their bounds, simulated and measured twins, repeats; and that each of them can fail."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom
from soak.noise import part as noise
from soak.noise import repeats, twins
from soak.noise.load import cores, load
from soak.noise.models import NOISES, SIDES, count_faster, ratio_of, value_rule
from soak.noise.rate import LIMIT, Rate, rate_of

from bench.in_process import InProcess
from narrows.bench import _sweep
from reporting.reports import make_report, with_speedup

SMALL = {"tokens": (64,), "ranks": (64, 128, 256), "variants": ("two",), "weights": ("gaussian",), "kind": "linear"}


@pytest.mark.parametrize(("count", "tried"), [(0, 1000), (1, 1000), (5, 1000), (78, 20_000)])
def test_the_bounds_of_a_rate_are_where_its_count_is_seen_once_in_20_times(count, tried):
    rate = Rate(count=count, tried=tried)

    assert binom.cdf(count, tried, rate.at_most) == pytest.approx(0.05)
    assert count == 0 or binom.sf(count - 1, tried, rate.at_least) == pytest.approx(0.05)


def test_bounds_of_several_rates_together_are_wider():
    assert Rate(count=3, tried=1000, kinds=8).at_most > Rate(count=3, tried=1000).at_most


@pytest.mark.parametrize(
    ("count", "tried", "status"),
    [
        (0, 1000, "ok"),
        (1, 1000, "ok"),
        (2, 1000, "not shown"),
        (5, 1000, "not shown"),
        (6, 1000, "failed"),
        (0, 100, "not shown"),
        (3, 100, "failed"),
        (78, 20_000, "ok"),
        (101, 20_000, "failed"),
    ],
)
def test_a_rate_passes_only_where_the_limit_holds_beyond_doubt(count, tried, status):
    assert Rate(count=count, tried=tried).status == status


def test_too_few_comparisons_say_so():
    assert str(Rate(count=0, tried=100)) == "0 of 100; the rate is at most 29.51 in 1,000: too few to show less"


def test_no_verdict_at_all_is_not_shown():
    few = repeats_of({64: 3.0, 128: 2.0, 256: 0.8}, {64: 3.0, 128: 2.0, 256: 0.8}, rounds=4)

    assert str(Rate(count=0, tried=0)) == "no comparison has a verdict"
    assert Rate(count=0, tried=0).status == noise.chosen(few).status == noise.compared(few).status == "not shown"


def test_comparisons_without_a_verdict_are_not_counted():
    assert rate_of(["tie", "unknown", "faster", "slower"]) == Rate(count=1, tried=3)


def test_simulated_noise_calls_no_variant_faster_than_itself_too_often():
    figure = noise.simulated(0, 250, 1)

    assert figure.status != "failed", figure
    assert figure.count == 250 * len(NOISES)


def test_a_verdict_without_an_interval_is_wrong_too_often():
    """The canary: the median ratio alone decides."""
    assert noise.simulated(0, 100, 1, rule=value_rule).status == "failed"


def test_rounds_in_one_order_are_wrong_too_often_where_the_first_of_a_round_is_slower():
    """The canary of the order: dense always first."""
    count, tried = count_faster("first of a round slower", 0, 100, order=lambda points, _: list(points))

    assert Rate(count=count, tried=tried).status == "failed"


def test_simulated_rounds_stop_where_the_interval_is_narrow():
    quiet = ratio_of(lambda _, moments: np.ones(moments), np.random.default_rng(0))

    assert (quiet.num_rounds, quiet.verdict) == (8, "tie")
    assert len(SIDES) == 2


@pytest.fixture
def in_process(monkeypatch):
    """Let sweeps run their child's code here: no process is started."""
    monkeypatch.setattr(twins, "Twins", type("Twins", (twins.Answers, InProcess), {}))
    monkeypatch.setattr(_sweep, "Worker", InProcess)


def test_a_call_measured_against_itself_is_not_faster(in_process):
    figure = noise.measured(0, 8)

    assert figure.status != "failed", figure
    assert figure.count + int(figure.reached.split(" without a verdict")[0].split("; ")[-1]) == 8


def test_a_side_that_takes_half_the_time_is_faster(in_process, monkeypatch):
    """The canary of the measurement: what is called dense takes twice as long. Times are given: nothing waits."""
    ask = twins.Twins.ask

    def given(self, do, *, timeout, **request):
        if do == "sample":
            return {"ns": 2000.0 if request["point"]["rank"] is None else 1000.0, "calls": 1}
        return ask(self, do, timeout=timeout, **request)

    monkeypatch.setattr(twins.Twins, "ask", given)
    figure = noise.measured(0, 4)

    assert figure.status == "failed"
    assert figure.reached.startswith("4 of 4")
    assert figure.details == ("python -m soak noise --seed 0",)


def test_a_load_takes_about_half_of_its_core():
    if len(cores()) < 2:
        pytest.skip("not shown: this machine has one core")
    with load(0) as taken:
        time.sleep(1.5)

    assert 0 < taken.share < 1


def repeats_of(*speedups, rounds=12):
    times = [with_speedup(lambda _, rank, one=one: one[rank]) for one in speedups]
    return [make_report(**SMALL, rounds=rounds, time_ns=each) for each in times]


def test_plans_that_are_the_same_agree():
    agreement = repeats.agreement(repeats_of(*[{64: 3.0, 128: 2.0, 256: 0.8}] * 3))

    assert (agreement.questions, agreement.asked, agreement.decided) == (3, 9, 9)
    assert (agreement.split, agreement.contradictions) == (0, ())


def test_a_plan_that_cannot_tell_contradicts_none():
    tie, won = repeats_of({64: 1.01, 128: 0.9, 256: 0.8}, {64: 1.2, 128: 0.9, 256: 0.8})
    agreement = repeats.agreement([tie, won])

    assert repeats.said(tie, 64, 64) == repeats.Said(answer=None, open_to=frozenset({64}))
    assert repeats.said(won, 64, 64).answer == 64
    assert (agreement.decided, agreement.split, agreement.contradictions) == (5, 1, ())


def test_plans_that_rule_each_other_out_are_reported():
    agreement = repeats.agreement(repeats_of({64: 1.2, 128: 0.9, 256: 0.8}, {64: 0.8, 128: 0.9, 256: 0.7}))

    assert agreement.contradictions == ("T=64, ranks from 64: repeat 0 rank 64, repeat 1 dense",)
    assert noise.chosen(repeats_of({64: 1.2, 128: 0.9, 256: 0.8}, {64: 0.8, 128: 0.9, 256: 0.7})).status == "failed"


def test_a_change_between_equal_repeats_is_reported():
    same, slower = {64: 2.0, 128: 2.0, 256: 2.0}, {64: 1.6, 128: 2.0, 256: 2.0}

    assert noise.compared(repeats_of(same, same)).status == "ok"
    assert noise.compared(repeats_of(same, slower)).reached.startswith("1 rows said to have changed")
    assert noise.compared(repeats_of(same, slower)).status == "failed"


def test_repeats_are_measured_apart(in_process, monkeypatch):
    small = replace(repeats.EXPERIMENT, in_features=32, out_features=32, tokens=(8,), ranks=(4,))
    monkeypatch.setattr(repeats, "EXPERIMENT", small)
    first, second = repeats.reports(2, 0.5)

    assert first.experiment == second.experiment
    assert first.rows[0].samples_ns != second.rows[0].samples_ns
    assert repeats.agreement([first, second]).asked == 2


def test_the_limit_is_five_in_a_thousand():
    assert pytest.approx(0.005) == LIMIT
