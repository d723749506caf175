"""Every layer's reason is true of the choice, and its figures are the options' own."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrows.planning._allocate_reasons import listed
from planning.layers import ON_A_BUSY_MACHINE, chosen, dense, large_model, layer, pivot


def reasons(options, other_ns=None, **limits):
    return [one.reason for one in chosen(options, other_ns, **limits).layers]


def test_a_smaller_form_says_what_it_saves_what_that_costs_and_what_the_budget_pays():
    # a saves 600 for 0.3 nats; half of b's 400 for 0.4 nats is the dearest saving, 0.001 nats a number.
    options = [layer("a", dense(1000), pivot(1, 400, 0.3)), layer("b", dense(1000), pivot(1, 600, 0.4))]
    why = reasons(options, keep=0.6)
    assert why[0] == (
        "Pivot 1 saves 60 % of its numbers for 0.3 nats, and this budget pays 0.6 nats for that; dense would spare "
        "0.3 nats of it and give up savings worth 0.6 nats."
    )


def test_dense_says_what_the_best_smaller_form_would_save_and_cost():
    options = [layer("a", dense(1000), pivot(1, 400, 0.3)), layer("b", dense(1000), pivot(1, 880, 0.4))]
    assert reasons(options, keep=0.8)[1] == (
        "No smaller form is worth its damage: the best, pivot 1, would save 12 % of its numbers for 0.4 nats, and "
        "this budget pays 0.06 nats for that."
    )


def test_the_larger_form_next_to_the_chosen_one_is_named_with_its_price():
    options = [layer("a", dense(1000), pivot(3, 700, 0.1), pivot(2, 400, 0.3)), layer("b", dense(1000))]
    (why, _) = reasons(options, keep=0.7)
    assert why.startswith("Pivot 2 saves 60 % of its numbers for 0.3 nats")
    assert "pivot 3 would spare 0.2 nats of it and give up savings worth 0.2 nats" in why


def test_a_form_that_only_fills_the_limit_says_so():
    options = [layer("a", dense(10), pivot(1, 5, 3.0)), layer("b", dense(10), pivot(1, 4, 4.0))]
    why = reasons(options, keep=0.7)
    assert why[0].startswith(
        "The limit is met without a smaller form: the best, pivot 1, would save 50 % of its numbers"
    )
    assert why[1].startswith("Pivot 1 saves 60 % of its numbers for 4 nats")


def test_several_limits_are_named_with_what_each_gains_or_loses():
    fast, small = pivot(2, 90, 0.2, 50.0, is_faster=True), pivot(1, 40, 0.1, 110.0, is_faster=False)
    options = [layer("a", dense(100, 100.0), fast, small), layer("b", dense(100, 100.0), fast, small)]
    why = reasons(options, other_ns=0.0, keep=0.7, speedup=1.2)
    assert any("saves 10 % of its numbers and 50 % of its time" in one for one in why)
    assert any("saves 60 % of its numbers and costs 10 % more time" in one for one in why)


def test_what_neither_grows_nor_shrinks_is_not_named():
    same = pivot(2, 100, 0.2, 50.0, is_faster=True)
    small = pivot(1, 40, 0.1, 100.0, is_faster=False)
    options = [layer("a", dense(100, 100.0), same), layer("b", dense(100, 100.0), small)]
    why = reasons(options, other_ns=0.0, keep=0.7, speedup=1.2)
    assert why[0].startswith("Pivot 2 saves 50 % of its time for 0.2 nats")
    assert why[1].startswith("Pivot 1 saves 60 % of its numbers for 0.1 nats")


@pytest.mark.parametrize(("parts", "text"), [("a", "a"), ("ab", "a and b"), ("abcd", "a, b, c and d")])
def test_parts_are_listed_with_an_and_before_the_last(parts, text):
    assert listed(list(parts)) == text


def test_a_budget_that_changes_nothing_says_so():
    assert reasons([layer("a", dense(10), pivot(1, 5, 0.1))], keep=1.0) == ["The budget is met without changing it."]


def test_a_layer_without_other_forms_says_so():
    options = [layer("a", dense(10)), layer("b", dense(10), pivot(1, 2, 0.1))]
    assert reasons(options, keep=0.7)[0] == "No other form was offered."


def test_forms_that_are_not_faster_or_were_not_timed_are_counted():
    slow, untimed = pivot(2, 8, 0.1, 99.0, is_faster=False), pivot(1, 4, 0.2)
    options = [layer("a", dense(10, 100.0), slow, untimed)]
    assert reasons(options, other_ns=0.0, speedup=1.0) == [
        "None of its 2 other forms can gain time: 1 are not faster than dense beyond a tie and 1 have no measured time."
    ]


def test_forms_that_save_nothing_of_what_is_limited_say_so():
    options = [layer("a", dense(10), pivot(1, 10, 0.1)), layer("b", dense(10), pivot(1, 2, 0.1))]
    assert reasons(options, keep=0.7)[0] == "None of its 1 other forms saves any numbers."


def test_perplexity_alone_prices_what_is_made_least():
    options = [layer("a", dense(1000), pivot(1, 400, 0.001)), layer("b", dense(1000), pivot(1, 900, 0.5))]
    why = reasons(options, perplexity=0.01)
    assert why[0].startswith("Pivot 1 saves 60 % of its numbers for 0.001 nats")
    assert "would save 10 % of its numbers for 0.5 nats" in why[1]


FIGURES = re.compile(r"(?:saves|would save) ([\d.e+-]+) % of its numbers for ([\d.e+-]+) nats")


@pytest.fixture(scope="module")
def large():
    return chosen(large_model(blocks=8), keep=0.8)


def test_the_figures_of_a_large_plans_reasons_are_those_of_the_options(large):
    thin = [one for one in large.layers if one.chosen.form != "dense"]
    assert len(thin) > 5
    for one in thin:
        share, damage = map(float, FIGURES.search(one.reason).groups())
        assert share == pytest.approx(100 * (1 - one.chosen.numbers / one.dense.numbers), rel=0.01)
        assert damage == pytest.approx(one.chosen.damage, rel=0.01)
        assert one.reason.startswith(f"{one.chosen.form} {one.chosen.rank} saves".capitalize())


def test_what_the_budget_pays_for_a_number_is_one_price_for_all_layers(large):
    prices = []
    for one in large.layers:
        if one.chosen.form != "dense":
            paid = float(re.search(r"budget pays ([\d.e+-]+) nats", one.reason)[1])
            prices.append(paid / (one.dense.numbers - one.chosen.numbers))
    assert max(prices) == pytest.approx(min(prices), rel=0.02)


@ON_A_BUSY_MACHINE
@given(seed=st.integers(0, 10**6), keep=st.floats(0.4, 1.0))
def test_every_reason_is_one_sentence_that_ends(seed, keep):
    for why in reasons(large_model(blocks=1, seed=seed % 5), keep=keep):
        assert why[0].isupper()
        assert why.endswith(".")
        assert "\n" not in why
