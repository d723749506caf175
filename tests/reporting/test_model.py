"""Tables of a model: the plan's and the frontier's own figures, predicted beside measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from narrows._values import ModelBudget, ModelPoint
from narrows.errors import InputError
from narrows.planning import ModelFrontierPoint
from narrows.reporting import (
    frontier_table,
    measured_table,
    model_budget_text,
    model_plan_table,
    model_summary_table,
    table_text,
)
from narrows.reporting._model_points import beaten_by, placed
from reporting.models import make_measured, make_options, make_plan, make_points


@pytest.fixture(scope="module")
def options():
    return make_options(blocks=2)


@pytest.fixture(scope="module")
def plan(options):
    return make_plan(options)


@pytest.fixture(scope="module")
def points(options):
    return make_points(options)


def by_name(table, row):
    return {column.name: cell for column, cell in zip(table.columns, row, strict=True)}


def test_every_layer_has_a_row_with_its_form_figures_and_reason(plan):
    table = model_plan_table(plan)
    assert len(table.rows) == 14
    for row, one in zip(table.rows, plan.layers, strict=True):
        cells = by_name(table, row)
        assert (cells["layer"].value, cells["form"].value, cells["rank"].value) == (
            one.layer,
            one.chosen.form,
            one.chosen.rank,
        )
        assert cells["kept"].value == one.chosen.numbers / one.dense.numbers
        assert (cells["damage"].value, cells["time_ns"].value) == (one.chosen.damage, one.chosen.time_ns)
        assert (cells["dense_ns"].value, cells["reason"].text) == (one.dense.time_ns, one.reason)
    assert "at most 80 % of the numbers are kept, speedup at least 1.01x" in table.note


def test_the_summary_is_the_plans_own(plan):
    cells = {row[0].text: row[1] for row in model_summary_table(plan, [("KL", 0.5, "half")]).rows}
    assert cells["numbers kept"].value == plan.kept
    assert cells["predicted speedup"].value == plan.speedup
    assert cells["predicted perplexity / dense"].value == math.exp(plan.damage)
    assert cells["KL"].text == "half"
    dense = sum(one.chosen.form == "dense" for one in plan.layers)
    assert cells["layers left dense"].text == f"{dense} of 14"


def test_without_times_the_summary_promises_no_speedup(options):
    untimed = [replace(one, options=tuple(replace(o, time_ns=None) for o in one.options)) for one in options]
    table = model_summary_table(make_plan(untimed, ModelBudget(keep=0.9), other_ns=None))
    assert "predicted speedup" not in {row[0].text for row in table.rows}
    assert table.note == ""


def test_the_frontier_shows_every_point(points):
    table = frontier_table(points)
    assert len(table.rows) == len(points)
    first, last = by_name(table, table.rows[0]), by_name(table, table.rows[-1])
    assert (first["kept"].text, first["perplexity_ratio"].text, first["speedup"].text) == (
        "100.0 %",
        "1.0000x",
        "1.000x",
    )
    assert last["kept"].value == points[-1].kept


def test_a_perplexity_beyond_use_is_no_number_and_json_has_none():
    table = frontier_table([ModelFrontierPoint(0.1, 100, None, 9.3, 0), ModelFrontierPoint(0.1, 100, None, 1e4, 0)])
    values = [by_name(table, row)["perplexity_ratio"] for row in table.rows]
    assert [cell.text for cell in values] == ["over 10000x", "over 10000x"]
    assert json.dumps([cell.value for cell in values], allow_nan=False) == "[null, null]"


def test_a_measured_choice_stands_beside_its_prediction_and_int8_beside_none(plan, points):
    table = measured_table(points, make_measured(plan, points))
    rows = {row[0].text: by_name(table, row) for row in table.rows}
    assert rows["dense"]["perplexity_ratio"].value == 1.0
    assert rows["dense"]["predicted_ratio"].value == 1.0
    assert rows["int8"]["perplexity_ratio"].value == pytest.approx(23.44 / 23.39)
    assert rows["int8"]["predicted_ratio"].text == "-"
    assert rows["int8"]["note"].text == "weights in 8 bits"
    assert rows["keep 0.8"]["perplexity"].text == "25.100 [24.600, 25.700]"
    assert rows["keep 0.8"]["speedup"].text == "1.120x [1.100, 1.140]"
    assert rows["keep 0.8"]["predicted_ratio"].value == pytest.approx(math.exp(plan.damage), rel=0.01)
    assert rows["keep 0.75"]["predicted_speedup"].value == pytest.approx(points[6].speedup)


def test_a_prediction_between_two_points_lies_on_the_line_between_them():
    points = [ModelFrontierPoint(1.0, 100, 1.0, 0.0, 2), ModelFrontierPoint(0.5, 50, 2.0, 0.2, 0)]
    (one,) = placed(points, [ModelPoint("half way", 0.75, 75)])
    assert (one.damage, one.speedup) == (0.1, 1.5)
    assert one.is_choice
    assert one.perplexity_ratio is None


@pytest.mark.parametrize("point", [ModelPoint("int8", 1.0, 50), ModelPoint("tiny", 0.2, 20)])
def test_what_is_not_on_the_frontier_has_no_prediction(point):
    points = [ModelFrontierPoint(1.0, 100, 1.0, 0.0, 2), ModelFrontierPoint(0.5, 50, 2.0, 0.2, 0)]
    (one,) = placed(points, [point])
    assert (one.damage, one.speedup, one.is_choice) == (None, None, False)


def test_a_model_is_beaten_only_by_one_that_is_no_worse_in_both():
    dense, int8, half = placed(
        [],
        [
            ModelPoint("dense", 1.0, 100, 1.0, perplexity=10.0),
            ModelPoint("int8", 1.0, 50, 0.9, perplexity=10.0),
            ModelPoint("half", 0.5, 50, 1.5, perplexity=12.0),
        ],
    )
    every = (dense, int8, half)
    assert [beaten_by(one, every, "speedup") for one in every] == [None, dense, None]
    assert [beaten_by(one, every, "bytes") for one in every] == [int8, None, int8]


def test_models_without_a_measured_speed_are_not_compared_by_it():
    every = placed([], [ModelPoint("dense", 1.0, 100, perplexity=10.0), ModelPoint("bad", 1.0, 100, perplexity=20.0)])
    assert [beaten_by(one, every, "speedup") for one in every] == [None, None]
    assert beaten_by(every[1], every, "bytes") is every[0]


def test_the_budget_is_told_in_words():
    budget = ModelBudget(perplexity=0.01, keep=0.9, speedup=1.2, max_bytes=64 << 20)
    assert model_budget_text(budget) == (
        "perplexity grows by at most 1 %, at most 90 % of the numbers are kept, speedup at least 1.2x, at most 64.0 MiB"
    )


def test_tables_print_as_text(plan, points):
    assert "Frontier of the whole model, predicted" in table_text(frontier_table(points))
    assert plan.layers[3].reason in table_text(model_plan_table(plan))


@pytest.mark.parametrize("bad", [{"kept": 0.0}, {"num_bytes": -1}, {"perplexity": math.inf}, {"speedup": math.nan}])
def test_a_measured_point_without_sense_is_refused(bad):
    (name,) = bad
    with pytest.raises(InputError, match=f"'x': {name}=.* must be a finite number > 0"):
        ModelPoint(**({"label": "x", "kept": 1.0, "num_bytes": 1} | bad))
