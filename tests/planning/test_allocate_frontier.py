"""The frontier: every point is a choice that nothing beats at its cost."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrows.errors import InputError
from narrows.planning import model_frontier
from planning.layers import ON_A_BUSY_MACHINE, chosen, dense, large_model, layer, pivot

ALL = 1000  # more points than a small model's hull has


@st.composite
def models(draw):
    layers = []
    for place in range(draw(st.integers(1, 4))):
        most = draw(st.integers(20, 60))
        ranks = range(1, draw(st.integers(1, 5)))
        options = [pivot(r, draw(st.integers(1, most - 1)), draw(st.integers(1, 64)) / 64) for r in ranks]
        layers.append(layer(f"layer{place}", dense(most), *options))
    return layers


@ON_A_BUSY_MACHINE
@given(options=models())
def test_every_point_has_the_least_damage_at_its_numbers(options):
    for point in model_frontier(options, points=ALL):
        assert chosen(options, keep=point.kept).damage == pytest.approx(point.damage, abs=1e-9)


@ON_A_BUSY_MACHINE
@given(options=models(), keep=st.floats(0.2, 1.0))
def test_no_choice_lies_below_the_line_between_two_points(options, keep):
    points = model_frontier(options, points=ALL)
    if keep < points[-1].kept:
        return
    plan = chosen(options, keep=keep)
    high, low = next((h, w) for h, w in pairwise([points[0], *points]) if w.kept <= plan.kept <= h.kept)
    share = (high.kept - plan.kept) / (high.kept - low.kept) if high.kept > low.kept else 0.0
    assert plan.damage >= high.damage + share * (low.damage - high.damage) - 1e-9


@ON_A_BUSY_MACHINE
@given(options=models())
def test_the_frontier_goes_from_dense_to_the_smallest_and_is_convex(options):
    points = model_frontier(options, points=ALL)
    assert (points[0].kept, points[0].damage, points[0].dense_layers) == (1.0, 0.0, len(options))
    smallest = sum(min(o.numbers for o in one.options) for one in options)
    assert points[-1].kept == smallest / sum(one.options[0].numbers for one in options)
    slopes = [(b.damage - a.damage) / (a.kept - b.kept) for a, b in pairwise(points)]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(slopes))


def test_points_are_spread_over_the_cost():
    points = model_frontier(large_model(blocks=4), points=21)
    assert len(points) == 21
    steps = [a.kept - b.kept for a, b in pairwise(points)]
    assert max(steps) < 1.5 * (1 - points[-1].kept) / 20


def test_time_leads_to_other_choices_and_leaves_out_forms_that_are_not_faster():
    small = pivot(1, 2, 0.1, 99.0, is_faster=False)
    fast = pivot(2, 9, 0.2, 20.0, is_faster=True)
    options = [layer("a", dense(10, 100.0), small, fast)]
    by_time, by_numbers = (model_frontier(options, cost=cost, other_ns=60.0) for cost in ("time", "numbers"))
    assert [(one.kept, one.speedup) for one in by_time] == [(1.0, 1.0), (0.9, 2.0)]
    assert by_numbers[-1].kept == 0.2


def test_bytes_are_counted_as_the_options_give_them():
    wide = replace(pivot(1, 4, 0.1), bytes=19)
    options = [layer("a", dense(10), wide, pivot(2, 5, 0.1))]
    assert [one.num_bytes for one in model_frontier(options, cost="bytes")] == [20, 10]


def test_a_speedup_is_shown_only_where_every_time_is_known():
    options = [layer("a", dense(10, 100.0), pivot(2, 6, 0.1, 50.0), pivot(1, 4, 0.5))]
    assert [one.speedup for one in model_frontier(options, other_ns=0.0, points=ALL)] == [1.0, 2.0, None]
    assert {one.speedup for one in model_frontier(options, points=ALL)} == {None}


def test_the_perplexity_ratio_is_the_exponential_of_the_damage_and_may_be_beyond_float64():
    points = model_frontier([layer("a", dense(10), pivot(2, 6, 0.1), pivot(1, 1, 1e4))], points=ALL)
    assert points[1].perplexity_ratio == math.exp(0.1)
    assert points[2].perplexity_ratio == math.inf


def test_a_form_without_damage_is_the_first_step():
    points = model_frontier([layer("a", dense(10), pivot(1, 5, 0.0))])
    assert [(one.kept, one.damage) for one in points] == [(1.0, 0.0), (0.5, 0.0)]


def test_one_point_is_refused():
    with pytest.raises(InputError, match="points=1 must be at least 2"):
        model_frontier([layer("a", dense())], points=1)


def test_time_without_measured_times_is_refused():
    with pytest.raises(InputError, match="1 dense layers have none .the first is 'a'"):
        model_frontier([layer("a", dense())], cost="time")
