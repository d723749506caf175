"""The plan: what is chosen at a measured length, between two, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows._values import Budget, Plan
from narrows.errors import BudgetError, InputError
from narrows.planning import choose, points, scope
from reporting.reports import make_report, with_speedup

ONE = {"tokens": (64,), "ranks": (64, 128, 256), "variants": ("two",), "weights": ("gaussian",)}
TWO = ONE | {"tokens": (64, 128)}
BYTES_64 = 4 * 64 * (4096 + 4096)


def flat_error(_weight: str, _tokens: int, rank: int) -> float:
    return {64: 0.3, 128: 0.2, 256: 0.1}[rank]


def report_of(speedups: dict[int, float], **changes):
    return make_report(**(ONE | {"errors": flat_error} | changes), time_ns=with_speedup(lambda _, rank: speedups[rank]))


def only(plan: Plan):
    (choice,) = plan.choices
    return choice


def test_the_fastest_rank_is_taken_when_no_error_is_bounded_and_the_reasons_say_so():
    choice = only(choose(report_of({64: 3.0, 128: 2.0, 256: 1.5})))

    assert (choice.rank, choice.implementation, choice.bytes) == (64, "two", BYTES_64)
    assert choice.speedup_low > 2.9
    assert any(reason.startswith("No error was bounded: rank 64 has an error of 0.306") for reason in choice.reasons)


def test_among_ranks_within_the_error_budget_the_fastest_is_taken():
    choice = only(choose(report_of({64: 3.0, 128: 2.0, 256: 1.5}), Budget(error=0.25)))

    assert choice.rank == 128
    assert choice.error == pytest.approx(1.02 * 0.2)
    assert "Rank 64: the error is over the budget of 0.25." in choice.reasons


def test_the_upper_end_of_the_error_is_what_a_budget_bounds():
    assert only(choose(report_of({64: 3.0, 128: 2.0, 256: 1.5}), Budget(error=0.302))).rank == 128


def test_among_ranks_that_tie_in_time_the_largest_is_taken():
    choice = only(choose(report_of({64: 2.0, 128: 2.0, 256: 1.5})))

    assert choice.rank == 128
    assert any("cannot be told apart from that of rank 64" in reason for reason in choice.reasons)


def test_dense_wins_a_tie():
    choice = only(choose(report_of({64: 1.01, 128: 1.0, 256: 0.9})))

    assert (choice.rank, choice.implementation, choice.speedup, choice.error) == (None, "left", 1.0, 0.0)
    assert choice.bytes == 4 * 4096 * 4096
    assert "dense wins ties" in choice.reasons[0]


def test_dense_stays_when_no_rank_meets_the_error():
    choice = only(choose(report_of({64: 3.0, 128: 2.0, 256: 1.5}), Budget(error=0.01)))

    assert choice.rank is None
    assert "the smallest error is 0.102 at rank 256" in choice.reasons[0]


def test_a_rank_whose_ratio_to_dense_is_not_known_is_named_as_one_that_cannot_be_told():
    noisy = only(choose(report_of({64: 1.3, 128: 1.0, 256: 0.1}, noise=0.4)))
    known = only(choose(report_of({64: 1.01, 128: 1.0, 256: 0.1})))

    assert noisy.rank is None
    told = (
        "Cannot tell whether rank 64, 128 is faster than dense: the interval is 10 % wide or wider, which more rounds"
    )
    assert any(reason.startswith(told) for reason in noisy.reasons)
    assert not any("annot tell" in reason for reason in known.reasons)


def test_a_rank_whose_ratio_to_the_one_taken_is_not_known_is_named_as_one_that_cannot_be_told():
    noisy = only(choose(report_of({64: 30.0, 128: 26.0, 256: 2.0}, noise=0.4)))
    known = only(choose(report_of({64: 30.0, 128: 29.9, 256: 2.0})))

    assert noisy.rank == 64
    assert any(reason.startswith("Cannot tell its time from that of rank 128: ") for reason in noisy.reasons)
    assert known.rank == 128
    assert not any("annot tell" in reason for reason in known.reasons)


def test_few_rounds_cannot_beat_dense():
    assert only(choose(report_of({64: 3.0, 128: 2.0, 256: 1.5}, rounds=1))).rank is None


def test_a_rank_whose_error_is_not_known_is_no_candidate():
    report = report_of({64: 3.0, 128: 2.0, 256: 1.5})
    without = replace(report, errors=report.errors[1:])

    assert only(choose(without)).rank == 128


def test_another_weight_has_its_own_errors_and_the_same_times():
    report = report_of(
        {64: 3.0, 128: 2.0, 256: 1.5},
        weights=("gaussian", "product"),
        errors=lambda weight, *_: 0.5 if weight == "gaussian" else 1e-6,
    )

    assert only(choose(report, Budget(error=0.01))).rank is None
    assert only(choose(report, Budget(error=0.01), weight="product")).rank == 64


def test_max_bytes_rules_dense_out_and_then_a_slower_rank_may_be_taken():
    report = report_of({64: 0.7, 128: 0.8, 256: 0.9})

    choice = only(choose(report, Budget(max_bytes=2 * BYTES_64)))

    assert (choice.rank, choice.bytes) == (128, 2 * BYTES_64)


def test_a_speedup_that_nothing_reaches_is_an_answer_with_the_nearest_point():
    report = report_of({64: 3.0, 128: 2.0, 256: 1.5})

    with pytest.raises(
        BudgetError, match=r"min_speedup=2.5, error=0.25 at T=64. Nearest: rank 128 \(two\), 1.99x"
    ) as no:
        choose(report, Budget(error=0.25, min_speedup=2.5))

    assert no.value.nearest.rank == 128
    assert "With error=0.306 the other limits are met by rank 64 (two)." in str(no.value)


def test_the_nearest_point_can_be_met():
    report = report_of({64: 3.0, 128: 2.0, 256: 1.5})
    with pytest.raises(BudgetError) as no:
        choose(report, Budget(error=0.25, min_speedup=2.5))

    assert only(choose(report, Budget(error=0.25, min_speedup=no.value.nearest.speedup_low))).rank == 128


def test_bytes_that_nothing_fits_name_the_smallest():
    with pytest.raises(BudgetError, match="Nearest: rank 64") as no:
        choose(report_of({64: 3.0, 128: 2.0, 256: 1.5}), Budget(max_bytes=BYTES_64 - 1))

    assert no.value.nearest.bytes == BYTES_64


def test_bytes_and_error_together_can_leave_dense_the_nearest():
    with pytest.raises(BudgetError, match="Nearest: dense, 1.00x") as no:
        choose(report_of({64: 3.0, 128: 2.0, 256: 1.5}), Budget(error=0.01, min_speedup=1.5))

    assert no.value.nearest.rank is None


def test_dense_is_nearest_to_a_speedup_where_every_rank_is_slower():
    with pytest.raises(BudgetError, match="min_speedup=1.5 at T=64. Nearest: dense, 1.00x") as no:
        choose(report_of({64: 0.7, 128: 0.8, 256: 0.9}), Budget(min_speedup=1.5))

    assert no.value.nearest.rank is None


def test_between_two_lengths_a_rank_must_win_at_both():
    def speedup(tokens: int, rank: int) -> float:
        return {(64, 64): 0.8, (64, 128): 1.2, (64, 256): 1.1, (128, 64): 4.0, (128, 128): 2.0, (128, 256): 1.5}[
            tokens, rank
        ]

    plan = choose(make_report(**TWO, errors=flat_error, time_ns=with_speedup(speedup)))

    assert [(c.tokens_from, c.tokens_to, c.rank) for c in plan.choices] == [
        (64, 64, 128),
        (65, 127, 128),
        (128, 128, 64),
    ]
    gap = plan.at(100)
    assert (gap.time_ns, gap.dense_ns) == (None, None)
    assert gap.speedup == plan.at(64).speedup  # the worse end


def test_between_two_lengths_dense_stays_when_no_rank_wins_at_both():
    def speedup(tokens: int, rank: int) -> float:
        return 2.0 if (tokens, rank) in {(64, 64), (128, 128)} else 0.5

    gap = choose(make_report(**TWO, errors=flat_error, time_ns=with_speedup(speedup)), tokens=100).choices[0]

    assert (gap.tokens_from, gap.tokens_to, gap.rank) == (65, 127, None)
    assert "(T=64: rank 64; T=128: rank 128)" in gap.reasons[0]
    assert (gap.error, gap.speedup, gap.speedup_low, gap.speedup_high) == (0.0, 1.0, 1.0, 1.0)
    assert (gap.time_ns, gap.dense_ns, gap.bytes) == (None, None, 4 * 4096 * 4096)


def test_between_two_lengths_no_common_rank_and_no_dense_is_infeasible():
    def speedup(tokens: int, rank: int) -> float:
        return 2.0 if (tokens, rank) in {(64, 64), (128, 128)} else 0.5

    report = make_report(**TWO, errors=flat_error, time_ns=with_speedup(speedup))

    with pytest.raises(BudgetError, match="Between T=64 and T=128 no one rank meets min_speedup=1.5 at both ends"):
        choose(report, Budget(min_speedup=1.5), tokens=100)


def test_neighbouring_lengths_have_no_gap():
    plan = choose(make_report(**ONE | {"tokens": (64, 65)}))

    assert [(c.tokens_from, c.tokens_to) for c in plan.choices] == [(64, 64), (65, 65)]


def test_a_plan_covers_every_length_once_and_survives_json():
    plan = choose(make_report())

    for before, after in pairwise(plan.choices):
        assert after.tokens_from == before.tokens_to + 1
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("tokens", [63, 129])
def test_outside_the_measured_lengths_nothing_is_known(tokens):
    with pytest.raises(InputError, match=rf"tokens={tokens} is outside 64..128, the measured lengths \(64, 128\)"):
        choose(make_report(**TWO), tokens=tokens)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"weight": "real"}, "weight='real' is not in this report, which holds: gaussian"),
        ({"mode": "graph"}, "mode='graph' is not in this report, which holds: eager"),
        ({"cache": "cold"}, "cache='cold' is not in this report, which holds: hot"),
    ],
)
def test_what_the_report_lacks_is_refused(asked, text):
    with pytest.raises(InputError, match=text):
        choose(make_report(**ONE), **asked)


def test_modes_and_caches_are_chosen_from_apart():
    report = make_report(**ONE, modes=("eager", "graph"))

    assert choose(report).mode == "eager"
    assert choose(report, mode="graph").mode == "graph"
    assert {c.measured.row.mode for p in points(report, scope(report, mode="graph")) for c in p.candidates} == {"graph"}


def test_a_report_without_rows_is_refused():
    report = make_report(**ONE)
    empty = replace(report, rows=())

    with pytest.raises(InputError, match="no measured dense row in mode=eager, cache=hot"):
        choose(empty)


def test_doubts_about_the_chosen_row_are_reasons():
    choice = only(choose(report_of({64: 3.0, 128: 1.0, 256: 1.0}, noise=0.12, rounds=40)))

    assert choice.rank == 64
    assert any(reason.startswith("Doubt about rank 64 (two): spread") for reason in choice.reasons)


@settings(max_examples=25)
@given(
    speedups=st.lists(st.floats(0.3, 5.0), min_size=3, max_size=3),
    errors=st.lists(st.floats(0.001, 1.0), min_size=3, max_size=3),
    budget=st.floats(0.001, 1.0),
)
def test_whatever_is_chosen_meets_the_budget_and_is_dense_or_faster(speedups, errors, budget):
    by_rank = dict(zip((64, 128, 256), zip(speedups, errors, strict=True), strict=True))
    report = report_of(
        {rank: speedup for rank, (speedup, _) in by_rank.items()},
        errors=lambda _, __, rank: by_rank[rank][1],
        rounds=8,
    )

    choice = only(choose(report, Budget(error=budget)))

    assert choice.error <= budget
    assert choice.rank is None or choice.speedup_low > 1.02
    assert choice.reasons


def test_a_measured_length_alone_is_decided_as_in_the_whole_plan():
    report = make_report(**TWO, errors=flat_error, time_ns=with_speedup(lambda tokens, rank: 2.0 - rank / tokens / 8))
    whole = choose(report).choices
    for tokens in (64, 128):
        choice = only(choose(report, tokens=tokens))
        assert (choice.tokens_from, choice.tokens_to) == (tokens, tokens)
        assert choice in whole


def test_where_dense_stays_the_fastest_of_the_admitted_ranks_is_named():
    choice = only(choose(report_of({64: 0.7, 128: 0.9, 256: 0.5})))

    assert choice.rank is None
    assert re.search(r"beyond doubt: the best, rank 128 \(two\), gives 0\.9", choice.reasons[0])
