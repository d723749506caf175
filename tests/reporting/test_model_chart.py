"""Charts of a model: every measured model has its place, and what is beaten is an outline."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from narrows._values import ModelPoint
from narrows.reporting import kept_by_block, quality_by_bytes, quality_by_speed
from narrows.reporting._plot import draw
from reporting.models import make_measured, make_options, make_plan, make_points


@pytest.fixture(scope="module")
def model():
    options = make_options(blocks=3)
    plan, points = make_plan(options), make_points(options)
    return plan, points, make_measured(plan, points)


def named(chart):
    return {point.cells[0]: point for series in chart.series for point in series.points}


def test_dense_int8_and_choices_lie_where_they_were_measured(model):
    plan, points, measured = model
    speed, size = (named(make(points, measured, plan)) for make in (quality_by_speed, quality_by_bytes))
    assert (speed["dense"].x, speed["dense"].y) == (1.0, 0.0)
    assert speed["int8"].x == 0.96
    assert size["int8"].x == pytest.approx(0.5)
    assert size["int8"].y == pytest.approx(23.44 / 23.39 - 1)
    assert speed["keep 0.8"].low == pytest.approx(24.6 / 23.39 - 1)
    assert speed["this plan, predicted"].y == math.expm1(plan.damage)


def test_what_another_beats_is_an_outline(model):
    _, points, measured = model
    speed, size = (named(make(points, measured)) for make in (quality_by_speed, quality_by_bytes))
    assert {name for name, point in speed.items() if point.is_hollow} == {"int8", "keep 0.5"}
    assert {name for name, point in size.items() if point.is_hollow} == {"keep 0.8", "keep 0.75", "keep 0.5"}


def test_the_frontier_is_drawn_from_dense_and_not_far_beyond_what_was_measured(model):
    _, points, measured = model
    (line,) = [one for one in quality_by_bytes(points, measured).series if one.key == "frontier"]
    assert (line.points[0].x, line.points[0].y) == (1.0, 0.0)
    assert max(point.y for point in line.points) <= 1.5 * (34.0 / 23.39 - 1)
    assert points[-1].perplexity_ratio - 1 > 1.5 * (34.0 / 23.39 - 1)


def test_without_speeds_there_is_no_chart_of_speed(model):
    _, points, _ = model
    untimed = [replace(one, speedup=None) for one in points]
    assert quality_by_speed(untimed, [ModelPoint("dense", 1.0, points[0].num_bytes, perplexity=20.0)]) is None
    assert quality_by_bytes(untimed, ()) is not None


def test_labels_do_not_cover_each_other_and_values_keep_their_names(model):
    _, points, _ = model
    dense = ModelPoint("dense", 1.0, points[0].num_bytes, 1.0, perplexity=20.0)
    twin = replace(dense, label="another of the same")
    chart = quality_by_speed(points, (dense, twin))
    assert [point.label for name, point in named(chart).items() if name != "predicted"] == [("dense",), ()]
    assert "another of the same" in draw(chart, "x")


def test_ticks_of_growth_keep_apart_however_far_it_reaches(model):
    _, points, _ = model
    for worst in (20.1, 25.0, 400.0, 20000.0):
        pair = [
            ModelPoint(n, k, points[0].num_bytes, k, perplexity=p)
            for n, k, p in (("dense", 1.0, 20.0), ("b", 0.9, worst))
        ]
        chart = quality_by_speed(points, pair)
        places = [chart.y.at(tick, 0.0, 280.0) for tick, _ in chart.y.ticks]
        assert len(places) > 2
        assert min(b - a for a, b in pairwise(places)) > 12


def test_every_layer_is_at_its_block_with_what_it_keeps(model):
    plan, _, _ = model
    chart = kept_by_block(plan)
    assert [series.name for series in chart.series][:2] == ["q_proj", "k_proj"]
    found = {point.cells[0]: (point.x, point.y) for series in chart.series for point in series.points}
    for one in plan.layers:
        assert found[one.layer] == (int(one.layer.split(".")[2]), one.chosen.numbers / one.dense.numbers)


def test_layers_without_blocks_have_no_such_chart(model):
    plan, _, _ = model
    renamed = tuple(replace(one, layer=f"layer{place}") for place, one in enumerate(plan.layers))
    assert kept_by_block(replace(plan, layers=renamed)) is None
