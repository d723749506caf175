"""Which form every layer takes: exact within every limit, dense on ties, no form chosen for a speed it has not."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from narrows._values import ModelBudget, ModelPlan, Workload
from narrows.errors import BudgetError, InputError, NonFiniteError
from narrows.planning import allocate
from planning.layers import ON_A_BUSY_MACHINE, chosen, dense, forms, keeps, layer, least_damage, pivot

OTHER_NS = 64.0


@st.composite
def models(draw):
    """Draw up to 5 layers of up to 5 options; times and numbers go down with the rank only roughly."""
    layers = []
    for place in range(draw(st.integers(1, 5))):
        numbers, time_ns = draw(st.integers(20, 60)), draw(st.integers(20, 60))
        options = [dense(numbers, float(time_ns))]
        for rank in range(1, draw(st.integers(1, 5))):
            damage = draw(st.integers(0, 64)) / 64
            figures = draw(st.integers(1, numbers)), float(draw(st.integers(1, 60)))
            options.append(pivot(rank, figures[0], damage, figures[1]))
        layers.append(layer(f"layer{place}", *options))
    return layers


@st.composite
def budgets(draw, limits):
    """Draw a budget with these limits."""
    shares = {"keep": st.floats(0.3, 1.0), "speedup": st.floats(0.8, 2.0), "max_bytes": st.integers(20, 500)}
    shares["perplexity"] = st.floats(0.0, 2.0)
    return ModelBudget(**{name: draw(shares[name]) for name in limits})


KINDS = [
    tuple(each)
    for size in (1, 2, 3, 4)
    for each in itertools.combinations(("keep", "max_bytes", "speedup", "perplexity"), size)
    if each != ("perplexity",)
]


@pytest.mark.parametrize("limits", KINDS, ids="-".join)
@ON_A_BUSY_MACHINE
@given(data=st.data())
def test_the_damage_is_the_least_of_all_choices_that_keep_the_limits(limits, data):
    options, budget = data.draw(models()), data.draw(budgets(limits))
    least = least_damage(options, budget, OTHER_NS)
    if least is None:
        with pytest.raises(BudgetError):
            allocate(options, budget, dtype="float32", method="two-sided", other_ns=OTHER_NS)
        return
    plan = allocate(options, budget, dtype="float32", method="two-sided", other_ns=OTHER_NS)
    assert plan.damage == pytest.approx(least, abs=1e-9)
    assert keeps([one.chosen for one in plan.layers], options, budget, OTHER_NS)


@ON_A_BUSY_MACHINE
@given(options=models(), budget=budgets(("perplexity",)))
def test_perplexity_alone_buys_the_least_time_and_of_those_choices_the_least_damage(options, budget):
    plan = allocate(options, budget, dtype="float32", method="two-sided", other_ns=OTHER_NS)
    every = itertools.product(*(one.options for one in options))
    within = [choice for choice in every if keeps(choice, options, budget, OTHER_NS)]
    least = min((sum(one.time_ns for one in choice), sum(one.damage for one in choice)) for choice in within)
    assert sum(one.chosen.time_ns for one in plan.layers) == least[0]
    assert plan.damage == pytest.approx(least[1], abs=1e-9)


@ON_A_BUSY_MACHINE
@given(options=models(), budget=budgets(("perplexity",)))
def test_perplexity_alone_buys_the_fewest_numbers_where_no_time_was_measured(options, budget):
    options = [replace(one, options=tuple(replace(o, time_ns=None) for o in one.options)) for one in options]
    plan = allocate(options, budget, dtype="float32", method="two-sided")
    every = itertools.product(*(one.options for one in options))
    least = min(sum(o.numbers for o in choice) for choice in every if keeps(choice, options, budget, None))
    assert sum(one.chosen.numbers for one in plan.layers) == least


def lagrangian_damage(options, most):
    """Return the damage of the best choice that one price of numbers leads to: what a greedy rule would take."""
    found = []
    for price in [step / 1000 for step in range(2001)]:
        picks = [min(one.options, key=lambda o: (o.damage + price * o.numbers, o.numbers)) for one in options]
        if sum(one.numbers for one in picks) <= most:
            found.append(sum(one.damage for one in picks))
    return min(found)


def test_a_choice_that_no_price_leads_to_is_found():
    # 14 of 20 may be kept: the bargain (5 saved for 3) is not enough, the dearer one (6 for 4) is enough alone.
    options = [layer("a", dense(10), pivot(1, 5, 3.0)), layer("b", dense(10), pivot(1, 4, 4.0))]
    plan = chosen(options, keep=0.7)
    assert forms(plan) == (None, 1)
    assert plan.damage == 4.0
    assert lagrangian_damage(options, 14) == 7.0


def test_a_limit_is_kept_to_the_last_number():
    options = [layer("a", dense(1000), pivot(2, 900, 1.0), pivot(1, 899, 2.0))]
    assert forms(chosen(options, keep=0.9)) == (2,)
    assert forms(chosen(options, keep=0.8999)) == (1,)
    assert forms(chosen(options, max_bytes=1800)) == (2,)
    assert forms(chosen(options, max_bytes=1799)) == (1,)


def test_a_limit_that_is_reached_to_the_digit_is_kept():
    # In binary 0.3 is a little less than 6 / 20 and 1.1 a little more than 110 / 100: what is asked is meant in digits.
    options = [layer("a", dense(20, 110.0), pivot(1, 6, 0.5, 100.0))]
    assert forms(chosen(options, keep=0.3)) == (1,)
    assert forms(chosen(options, other_ns=0.0, speedup=1.1)) == (1,)


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.7, 0.9, 1 / 3])
def test_the_plan_itself_agrees_that_the_limit_is_kept(keep):
    options = [layer("a", dense(3000), *(pivot(rank, rank, 1 / rank) for rank in range(1, 3000, 7)))]
    assert chosen(options, keep=keep).kept <= keep


def test_a_speedup_counts_the_time_that_no_choice_changes():
    options = [layer("a", dense(10, 100.0), pivot(1, 5, 0.1, 40.0, is_faster=True))]
    assert forms(chosen(options, other_ns=0.0, speedup=2.5)) == (1,)
    assert chosen([layer("a", dense(10, 1.0), pivot(1, 5, 0.1, 0.0))], other_ns=0.0, keep=0.5).speedup == math.inf
    assert chosen(options, other_ns=100.0, speedup=1.4).speedup == 200 / 140
    with pytest.raises(BudgetError, match="largest speedup is 1.429"):
        chosen(options, other_ns=100.0, speedup=1.5)


def test_a_damage_within_ln_of_one_plus_perplexity_is_allowed_and_not_more():
    options = [layer("a", dense(10), pivot(1, 5, math.log(1.01)))]
    assert forms(chosen(options, perplexity=0.0101)) == (1,)
    assert forms(chosen(options, perplexity=0.0099)) == (None,)


def test_dense_wins_a_tie_in_damage():
    options = [layer("a", dense(10), pivot(1, 5, 0.0)), layer("b", dense(10), pivot(1, 5, 0.0))]
    assert forms(chosen(options, keep=1.0)) == (None, None)
    assert forms(chosen(options, keep=0.75)).count(None) == 1


def test_dense_wins_a_tie_in_time():
    options = [layer("a", dense(10, 50.0), pivot(1, 5, 0.0, 50.0))]
    assert forms(chosen(options, other_ns=0.0, perplexity=0.1)) == (None,)


def test_of_forms_that_cost_the_same_the_larger_rank_is_taken():
    options = [layer("a", dense(10), pivot(1, 5, 0.5), pivot(3, 5, 0.5), pivot(2, 5, 0.5))]
    assert forms(chosen(options, keep=0.5)) == (3,)


def test_a_form_that_is_not_faster_beyond_a_tie_is_not_chosen_for_its_speed():
    options = [layer("a", dense(10, 100.0), pivot(1, 5, 0.01, 99.0, is_faster=False))]
    assert forms(chosen(options, other_ns=0.0, perplexity=0.1)) == (None,)
    with pytest.raises(BudgetError, match="largest speedup is 1:"):
        chosen(options, other_ns=0.0, speedup=1.005)


def test_such_a_form_is_chosen_for_its_numbers_and_its_time_counts_as_denses():
    slow = pivot(1, 5, 0.01, 80.0, is_faster=False)
    options = [layer("a", dense(10, 100.0), slow), layer("b", dense(10, 100.0), pivot(1, 9, 0.5, 50.0, is_faster=True))]
    assert forms(chosen(options, other_ns=0.0, keep=0.75)) == (1, None)
    # The 20 ns that a saves were not shown beyond a tie: b has to bring the speedup.
    assert forms(chosen(options, other_ns=0.0, keep=0.75, speedup=1.1)) == (1, 1)


def test_a_form_without_a_measured_time_is_not_chosen_where_time_counts():
    options = [layer("a", dense(10, 100.0), pivot(2, 6, 0.0), pivot(1, 5, 0.1, 50.0))]
    assert forms(chosen(options, other_ns=0.0, speedup=1.5)) == (1,)
    assert forms(chosen(options, other_ns=0.0, keep=0.6)) == (2,)


def test_one_number_more_of_budget_never_costs_damage():
    ranks = range(4, 64, 4)
    options = [layer(f"l{i}", dense(), *(pivot(r, r * (128 - r), (1 + i) / r**1.5) for r in ranks)) for i in range(8)]
    damages = [chosen(options, keep=keep / 100).damage for keep in range(20, 101, 8)]
    assert damages == sorted(damages, reverse=True)
    assert damages[-1] == 0.0 < damages[-2]


def test_the_plan_holds_what_it_was_made_for():
    plan = allocate(
        [layer("a", dense(10, 5.0), pivot(1, 5, 0.5, 3.0))],
        ModelBudget(keep=0.5),
        workloads=[Workload.parse("prefill:2048x1")],
        dtype="bfloat16",
        method="two-sided",
        other_ns=3.0,
        fingerprint="f",
        device_name="a device",
        version="1",
    )
    assert (plan.dtype, plan.method, plan.fingerprint, plan.device_name) == ("bfloat16", "two-sided", "f", "a device")
    assert plan.workloads[0].rows == 2048
    assert plan.speedup == 8 / 6
    assert ModelPlan.from_json(plan.to_json()) == plan


# Infeasible budgets.


def test_the_smallest_keep_is_named_with_its_damage_and_given():
    options = [layer("a", dense(10), pivot(1, 4, 0.25)), layer("b", dense(10), pivot(1, 6, 0.5))]
    with pytest.raises(BudgetError) as caught:
        chosen(options, keep=0.4)
    assert str(caught.value) == (
        "No choice meets keep=0.4. The smallest keep is 0.5: 20 bytes, damage 0.75 nats a token (perplexity 2.117 "
        "times)."
    )
    assert isinstance(caught.value.nearest, ModelPlan)
    assert forms(caught.value.nearest) == (1, 1)
    assert caught.value.nearest.layers[0].reason == "Part of the choice that comes nearest; it does not meet keep=0.4."


def test_the_largest_speedup_is_named_with_the_least_damage_that_reaches_it():
    options = [layer("a", dense(10, 100.0), pivot(2, 8, 0.05, 50.0), pivot(1, 4, 0.25, 50.0))]
    with pytest.raises(BudgetError, match=r"largest speedup is 1\.5: keep 0\.8, 16 bytes, damage 0\.05 nats") as caught:
        chosen(options, other_ns=50.0, speedup=1.6)
    assert forms(caught.value.nearest) == (2,)


def test_limits_that_exclude_each_other_are_named_together():
    fast, small = pivot(2, 9, 0.1, 50.0, is_faster=True), pivot(1, 4, 0.1, 90.0, is_faster=True)
    options = [layer("a", dense(10, 100.0), fast, small)]
    assert forms(chosen(options, other_ns=0.0, keep=0.5)) == (1,)
    assert forms(chosen(options, other_ns=0.0, speedup=1.9)) == (2,)
    with pytest.raises(
        BudgetError, match=r"meets keep=0\.5 and speedup=1\.9\. With keep=0\.5 the largest speedup is 1\.111"
    ):
        chosen(options, other_ns=0.0, keep=0.5, speedup=1.9)


def test_a_perplexity_that_forbids_the_rest_is_named_with_what_the_rest_would_take():
    options = [layer("a", dense(10), pivot(2, 7, 0.01), pivot(1, 4, 0.25))]
    with pytest.raises(BudgetError) as caught:
        chosen(options, keep=0.5, perplexity=0.02)
    assert str(caught.value) == (
        "No choice meets perplexity=0.02 and keep=0.5. With perplexity=0.02 the smallest keep is 0.7: 14 bytes, damage "
        "0.01 nats a token (perplexity +1.01 %). keep=0.5 can be met at a damage of 0.25 nats a token (perplexity "
        "+28.4 %)."
    )
    assert forms(caught.value.nearest) == (2,)


@ON_A_BUSY_MACHINE
@given(options=models(), budget=budgets(("keep", "speedup")))
def test_what_comes_nearest_is_a_choice_that_keeps_the_limits_before_it(options, budget):
    assume(least_damage(options, budget, OTHER_NS) is None)
    with pytest.raises(BudgetError) as caught:
        allocate(options, budget, dtype="float32", method="two-sided", other_ns=OTHER_NS)
    nearest = caught.value.nearest
    alone = least_damage(options, replace(budget, speedup=None))
    assert (nearest.kept <= budget.keep) == (alone is not None)
    assert nearest.kept > budget.keep or nearest.speedup < budget.speedup


# Bad input.


def test_no_layers_are_refused():
    with pytest.raises(InputError, match="options is empty"):
        chosen([], keep=0.5)


def test_a_layer_that_is_there_twice_is_refused():
    with pytest.raises(InputError, match="'a' is there twice"):
        chosen([layer("a", dense()), layer("a", dense())], keep=0.5)


def test_a_layer_without_dense_first_is_refused():
    with pytest.raises(InputError, match="first option of 'a' must be dense"):
        chosen([layer("a", pivot(1, 5, 0.1), dense(10))], keep=0.5)


@pytest.mark.parametrize("damage", [math.nan, math.inf, -1.0])
def test_a_damage_that_is_no_finite_number_is_refused(damage):
    with pytest.raises(NonFiniteError, match=rf"damage={damage} of 'a', pivot 7"):
        chosen([layer("a", dense(10), pivot(7, 5, damage))], keep=0.5)


def test_a_speedup_without_times_is_refused():
    with pytest.raises(InputError, match=r"speedup=1\.2 needs other_ns, the time that no choice changes"):
        chosen([layer("a", dense(10, 5.0))], speedup=1.2)
    with pytest.raises(InputError, match="1 dense layers have none .the first is 'a'"):
        chosen([layer("a", dense(10))], other_ns=1.0, speedup=1.2)


def test_a_speedup_that_only_no_time_at_all_would_reach_is_refused():
    options = [layer("a", dense(10, 2.0), pivot(1, 5, 0.1, 1.0, is_faster=True))]
    with pytest.raises(BudgetError, match="No choice meets speedup=3. The largest speedup is 2:"):
        chosen(options, other_ns=0.0, speedup=3.0)


def test_a_speedup_that_not_even_the_least_counted_time_reaches_is_refused():
    least = 2.0**-49  # ns: where dense takes 1 ns, times are counted in this
    options = [layer("a", dense(10, 1.0), pivot(1, 5, 0.1, least, is_faster=True))]
    with pytest.raises(BudgetError, match=r"No choice meets speedup=1e\+15\. The largest speedup is 5\.6\d+e\+14:"):
        chosen(options, other_ns=0.0, speedup=1e15)
