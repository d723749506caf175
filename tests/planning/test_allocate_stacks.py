"""Layers that may share a projection: all of them do, in one form at one rank, or none; the choice is still exact."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrows._values import LayerOption, ModelBudget, ModelPlan
from narrows.errors import BudgetError, FileError, InputError
from narrows.planning import allocate, menu, model_frontier
from planning.layers import ON_A_BUSY_MACHINE, chosen, dense, keeps, large_model, layer, pivot

OTHER_NS = 64.0
MOST_SECONDS = 5.0  # on any machine, however busy; 0.6 s of one core was measured
LIMITS = [("keep",), ("speedup",), ("keep", "speedup"), ("keep", "max_bytes"), ("perplexity", "keep"), ("perplexity",)]


def shared(stack, rank, numbers, damage, time_ns=None, is_faster=None, form="pivot"):
    return LayerOption(form, rank, numbers, 2 * numbers, damage, time_ns, is_faster, stack)


def pair(own, other, both, names=("gate", "up")):
    """Return two layers that may share: their options, and (rank, numbers, damage) of each half of a shared form."""
    halves = tuple(shared(names, *one) for one in both)
    return [layer(names[0], *own, *halves), layer(names[1], *other, *halves)]


def choices(options):
    """Yield every choice in which layers of a stack share one form or none."""
    for choice in itertools.product(*(one.options for one in options)):
        by_name = {one.layer: option for one, option in zip(options, choice, strict=True)}
        if all(
            (by_name[name].stack, by_name[name].form, by_name[name].rank) == (option.stack, option.form, option.rank)
            for option in choice
            for name in option.stack
        ):
            yield choice


@st.composite
def models(draw):
    """Draw a stack of two or three layers and up to two other layers; figures go down with the rank only roughly."""
    found = []
    in_stack = draw(st.integers(2, 3))
    names = [f"layer{place}" for place in range(in_stack + draw(st.integers(0, 2)))]
    stack = tuple(draw(st.permutations(names))[:in_stack])
    ranks = range(1, draw(st.integers(2, 5)))
    for name in names:
        numbers, time_ns = draw(st.integers(20, 60)), draw(st.integers(20, 60))
        figures = st.tuples(st.integers(1, numbers), st.integers(0, 64), st.integers(1, 60))
        own = [
            pivot(rank, kept, damage / 64, float(ns))
            for rank, (kept, damage, ns) in enumerate(draw(st.lists(figures, max_size=3)), start=1)
        ]
        both = []
        if name in stack:
            both = [
                shared(stack, rank, kept, damage / 64, float(ns))
                for rank, (kept, damage, ns) in zip(ranks, (draw(figures) for _ in ranks), strict=True)
            ]
        found.append(layer(name, dense(numbers, float(time_ns)), *own, *both))
    return found


@pytest.mark.parametrize("limits", LIMITS, ids="-".join)
@ON_A_BUSY_MACHINE
@given(data=st.data())
def test_the_choice_is_the_best_of_all_that_share_or_do_not(limits, data):
    options = data.draw(models())
    shares = {"keep": st.floats(0.3, 1.0), "speedup": st.floats(0.8, 2.0), "max_bytes": st.integers(20, 500)}
    shares["perplexity"] = st.floats(0.0, 2.0)
    budget = ModelBudget(**{name: data.draw(shares[name]) for name in limits})
    within = [choice for choice in choices(options) if keeps(choice, options, budget, OTHER_NS)]
    if not within:
        with pytest.raises(BudgetError) as told:
            allocate(options, budget, dtype="float32", method="two-sided", other_ns=OTHER_NS)
        assert tuple(one.chosen for one in told.value.nearest.layers) in set(choices(options))
        return
    plan = allocate(options, budget, dtype="float32", method="two-sided", other_ns=OTHER_NS)
    picked = tuple(one.chosen for one in plan.layers)
    assert picked in within
    if limits == ("perplexity",):
        assert sum(one.time_ns for one in picked) == min(sum(one.time_ns for one in choice) for choice in within)
    else:
        assert plan.damage == pytest.approx(min(sum(o.damage for o in choice) for choice in within), abs=1e-9)


@ON_A_BUSY_MACHINE
@given(options=models())
def test_every_point_of_the_frontier_has_the_least_damage_at_its_numbers(options):
    points = model_frontier(options, points=1000)
    smallest = min(sum(o.numbers for o in choice) for choice in choices(options))
    assert points[-1].kept == smallest / sum(one.options[0].numbers for one in options)
    for point in points:
        assert chosen(options, keep=point.kept).damage == pytest.approx(point.damage, abs=1e-9)


def test_one_projection_is_taken_where_it_loses_less_than_two():
    options = pair([dense(100), pivot(8, 60, 0.5)], [dense(100), pivot(8, 60, 0.5)], [(12, 60, 0.2)])

    plan = chosen(options, keep=0.6)

    assert [str(one.chosen) for one in plan.layers] == ["shared pivot 12"] * 2
    assert [one.together for one in plan.layers] == [("gate", "up")] * 2
    assert (plan.kept, plan.damage) == (0.6, 0.4)
    assert plan.layers[1].reason == (
        "Together with gate: shared pivot 12 saves 40 % of its numbers for 0.4 nats, and this budget pays 0.4 nats for "
        "that."
    )
    # Canary: without the shared form two projections are taken.
    alone = [replace(one, options=one.options[:2]) for one in options]
    assert chosen(alone, keep=0.6).damage == 1.0


def test_two_projections_are_taken_where_one_layer_alone_should_shrink():
    options = pair([dense(100), pivot(8, 20, 0.1)], [dense(100), pivot(8, 20, 9.0)], [(12, 60, 0.4)])

    plan = chosen(options, keep=0.6)

    assert [str(one.chosen) for one in plan.layers] == ["pivot 8", "dense"]
    assert "shared" not in plan.layers[0].reason


def test_dense_wins_a_tie_with_a_shared_form_for_all_its_layers():
    options = pair([dense(100)], [dense(100)], [(12, 60, 0.0)])

    assert [str(one.chosen) for one in chosen(options, keep=1.0).layers] == ["dense", "dense"]
    assert [str(one.chosen) for one in chosen(options, keep=0.9).layers] == ["shared pivot 12"] * 2


def test_a_shared_form_that_is_not_faster_beyond_a_tie_is_not_chosen_for_its_speed():
    slow = [shared(("a", "b"), 12, 60, 0.1, 5.0, is_faster=False)]
    options = [layer(name, dense(100, 10.0), pivot(8, 60, 0.5, 8.0, is_faster=True), *slow) for name in ("a", "b")]

    plan = chosen(options, other_ns=1.0, speedup=1.2)

    assert [str(one.chosen) for one in plan.layers] == ["pivot 8", "pivot 8"]


def test_a_plan_with_shared_forms_comes_back_from_json():
    plan = chosen(pair([dense(100)], [dense(100)], [(12, 60, 0.1)]), keep=0.6)

    assert ModelPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda text: text.replace('"layer": "up"', '"layer": "down"'), "gate shares its projection with up, which is"),
        (
            lambda text: text.replace('"rank": 12', '"rank": 16', 1),
            "gate becomes shared pivot 16 with gate, up, but",
        ),
        (lambda text: text.replace('"gate"', '"other"', 1), "other shares its projection with gate, which is not in"),
    ],
)
def test_a_plan_whose_stack_is_not_whole_is_refused(change, text):
    plan = chosen(pair([dense(100)], [dense(100)], [(12, 60, 0.1)]), keep=0.6)
    changed = change(plan.to_json())
    assert changed != plan.to_json()

    with pytest.raises(FileError, match=text):
        ModelPlan.from_json(changed)


def test_a_stack_that_its_layers_do_not_agree_on_is_refused():
    gate, up = pair([dense(100)], [dense(100)], [(12, 60, 0.1)])
    with pytest.raises(InputError, match="'gate' shares a form with 'up', which is not among the layers"):
        chosen([gate], keep=0.9)
    with pytest.raises(InputError, match="'gate' and 'up' are of one stack and offer different shared forms"):
        chosen([gate, replace(up, options=up.options[:1])], keep=0.9)
    with pytest.raises(InputError, match=r"'down' has a form for the stack \('gate', 'up'\): it must be in it"):
        chosen([gate, up, replace(up, layer="down")], keep=0.9)


def with_stacks(options, seed=1):
    """Return a 70B-shaped model's options with shared forms of gate and up, which lose what one spectrum says."""
    rng = np.random.default_rng(seed)
    found = {one.layer: one for one in options}
    blocks = sorted({one.layer.rpartition(".")[0] for one in options})
    for block in blocks:
        names = (f"{block}.gate_proj", f"{block}.up_proj")
        D, E = found[names[0]].in_features, found[names[0]].out_features
        spectrum = (np.arange(1, D + 1) + rng.uniform(1, 50)) ** (-2 * rng.uniform(0.3, 1.4))
        tails = np.append(np.cumsum(spectrum[::-1])[::-1], 0.0) / spectrum.sum() * 10 ** rng.normal(-2, 0.7)
        halves = []
        for form in ("low-rank", "pivot"):
            for rank in menu(D, 2 * E, form):
                numbers = rank * (D + 2 * E - (rank if form == "pivot" else 0)) // 2
                time_ns = 2e-3 * numbers * (1.15 if form == "pivot" else 1.0) * rng.normal(1.05, 0.03) + 3e4
                is_faster = bool(time_ns < 0.98 * 2e-3 * D * E)
                halves.append(shared(names, rank, numbers, float(tails[rank]), time_ns, is_faster, form))
        for name in names:
            found[name] = replace(found[name], options=(*found[name].options, *halves))
    return [found[one.layer] for one in options]


@pytest.fixture(scope="module")
def large():
    options = large_model()
    return options, with_stacks(options)


BUDGETS = {
    "one": ModelBudget(keep=0.8),
    "two": ModelBudget(keep=0.8, speedup=1.15),
    "perplexity": ModelBudget(perplexity=0.01),
    "all": ModelBudget(perplexity=0.05, keep=0.8, speedup=1.15, max_bytes=108_000_000_000),
}


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_560_layers_with_80_stacks_are_decided_within_seconds_and_no_worse(large, budget):
    alone, together = large
    began = time.process_time()
    plan = allocate(together, budget, dtype="bfloat16", method="two-sided", other_ns=2e7)
    assert time.process_time() - began < MOST_SECONDS
    assert budget.keep is None or plan.kept <= budget.keep
    assert budget.speedup is None or plan.speedup >= budget.speedup
    assert any(one.chosen.stack for one in plan.layers)
    if budget.perplexity is None:
        without = allocate(alone, budget, dtype="bfloat16", method="two-sided", other_ns=2e7)
        assert plan.damage < without.damage


def test_the_frontier_of_a_large_model_with_stacks_takes_no_longer(large):
    began = time.process_time()
    points = model_frontier(large[1])
    assert time.process_time() - began < MOST_SECONDS
    assert len(points) == 33
