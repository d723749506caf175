"""Tables of a model whose damage has no unit of a loss."""

from __future__ import annotations

from dataclasses import replace

from narrows._values import LayerChoice, LayerOption, ModelBudget, ModelPlan
from narrows.planning import ModelFrontierPoint
from narrows.reporting._model import frontier_table, model_plan_table, model_summary_table
from narrows.reporting._model_unit import without_nats

DENSE = LayerOption("dense", None, 100, 400, 0.0)
PLAN = ModelPlan(
    (LayerChoice("a", 10, 10, replace(DENSE, form="pivot", rank=3, numbers=51, damage=0.25), DENSE, "why"),),
    ModelBudget(keep=0.9),
    (),
    dtype="float32",
    method="one-sided",
    other_ns=None,
    fingerprint="f",
    device_name="a CPU",
    version="0",
)


def test_neither_nats_nor_a_predicted_perplexity_is_left():
    point = ModelFrontierPoint(0.51, 204, None, 0.25, 0)
    tables = [
        model_summary_table(PLAN, [("cosine", 0.9, "0.9")]),
        model_plan_table(PLAN),
        frontier_table([point]),
    ]
    assert all("nats" in _heads(table) or "perplexity" in _heads(table) for table in tables)  # so that there is a loss

    for table in map(without_nats, tables):
        assert "nats" not in _heads(table)
        assert "perplexity" not in _heads(table).lower()
        assert "amage" in _heads(table)
        assert len(table.rows) >= 1
    summary = without_nats(tables[0])
    assert ("cosine", "0.9") in [(row[0].text, row[1].text) for row in summary.rows]
    assert ("predicted damage", "0.25") in [(row[0].text, row[1].text) for row in summary.rows]


def _heads(table):
    """Return all titles of columns and names of rows as one text."""
    return " | ".join([column.title for column in table.columns] + [row[0].text for row in table.rows])
