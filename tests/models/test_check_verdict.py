"""A limit is met or broken only where the whole interval lies on one side of it."""

from __future__ import annotations

import pytest

from narrows._values import ModelBudget, Workload
from narrows._values._check import CheckedSide, Estimate, LanguageQuality, Timing
from narrows.models._check_verdict import judge, overall_speedup

DENSE = CheckedSide("dense", numbers=1000, kept_bytes=4000)


def side(*, low: float | None = 1.01, high: float | None = 1.03, numbers: int = 900) -> CheckedSide:
    quality = LanguageQuality(20.4, ratio=Estimate(1.02, low, high))
    return CheckedSide("narrows", numbers=numbers, kept_bytes=4 * numbers, language=quality)


def timings(dense_ns: float, *ns: float, workload: str = "prefill:64x1") -> tuple[Timing, ...]:
    asked = Workload.parse(workload)
    return (Timing(asked, "dense", (dense_ns,) * len(ns), None), Timing(asked, "narrows", ns, None))


def answer(budget: ModelBudget, **changes) -> str:
    (one,) = judge(budget, DENSE, side(**changes), timings(120.0, *[100.0] * 8))
    return one.answer


@pytest.mark.parametrize(("limit", "expected"), [(0.03, "met"), (0.02, "cannot tell"), (0.009, "broken")])
def test_perplexity(limit, expected):
    assert answer(ModelBudget(perplexity=limit)) == expected


def test_perplexity_that_got_better_is_met():
    assert answer(ModelBudget(perplexity=0.0), low=0.97, high=1.0) == "met"


def test_perplexity_of_too_few_documents_cannot_be_told():
    assert answer(ModelBudget(perplexity=0.5), low=None, high=None) == "cannot tell"


@pytest.mark.parametrize(("keep", "expected"), [(0.9, "met"), (0.899, "broken")])
def test_numbers_are_counted_without_doubt(keep, expected):
    assert answer(ModelBudget(keep=keep)) == expected


@pytest.mark.parametrize(("limit", "expected"), [(3600, "met"), (3599, "broken")])
def test_bytes_are_counted_without_doubt(limit, expected):
    assert answer(ModelBudget(max_bytes=limit)) == expected


@pytest.mark.parametrize(("limit", "expected"), [(1.0, "met"), (1.2, "cannot tell"), (1.4, "broken")])
def test_speedup(limit, expected):
    times = timings(120.0, *[90.0, 110.0] * 5)  # 1.09x to 1.33x

    (one,) = judge(ModelBudget(speedup=limit), DENSE, side(), times)

    assert one.answer == expected
    assert one.reason == f"1.212x (99 %: 1.091 to 1.333); {limit:g}x is asked for"


def test_workloads_count_by_their_weight():
    fast = timings(300.0, *[100.0] * 8, workload="prefill:64x1=3")
    slow = timings(100.0, *[200.0] * 9, workload="decode:64x1=1")

    found = overall_speedup([*fast, *slow])

    assert found is not None
    assert (found.value, found.num_rounds) == (1000 / 500, 8)


def test_what_was_not_measured_cannot_be_told():
    nothing = judge(ModelBudget(perplexity=0.1, speedup=1.1), DENSE, CheckedSide("narrows", numbers=1), ())

    assert [(one.answer, one.found) for one in nothing] == [("cannot tell", None)] * 2
