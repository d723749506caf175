"""Tables of a whole model: what was decided for each layer, what that gives, and what else can be had."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from narrows.reporting import _cells as cells
from narrows.reporting._model_points import Placed, placed
from narrows.reporting._table import Cell, Column, Table
from narrows.reporting._text import MISSING, bytes_text, percent_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows._values import LayerChoice, ModelBudget, ModelPlan, ModelPoint
    from narrows.planning import ModelFrontierPoint

LARGEST_RATIO = 1e4  # of perplexities; what is shown as a number
PREDICTED_NOTE = (
    "Predicted: from calibration, layer by layer, and too good where much is lost: what layers lose adds up less "
    "kindly. Every choice shown has the least damage at its cost."
)
MEASURED_NOTE = (
    "Predicted: at that share of numbers on the frontier; what saves bytes in another way has no prediction."
)


def model_plan_table(plan: ModelPlan) -> Table:
    """Return what every layer becomes, and why."""
    columns = (
        cells.left("layer", "Layer"),
        cells.left("form", "Form"),
        Column("rank", "Rank"),
        Column("kept", "Kept"),
        Column("damage", "Damage, nats"),
        Column("time_ns", "Time"),
        Column("dense_ns", "Dense", is_detail=True),
        cells.left("reason", "Why"),
    )
    title = f"What each of {len(plan.layers)} layers becomes"
    note = f"Budget: {model_budget_text(plan.budget)}. Factors: {plan.method}, {plan.dtype}."
    return Table("plan", title, columns, tuple(_choice_row(one) for one in plan.layers), note)


def model_summary_table(plan: ModelPlan, measured: Sequence[tuple[str, float | None, str]] = ()) -> Table:
    """Return what a plan gives in all.

    Args:
        plan: what was decided.
        measured: (name, value, text) of what was measured of the whole model.
    """
    dense_layers = sum(one.chosen.form == "dense" for one in plan.layers)
    dense_bytes = sum(one.dense.bytes for one in plan.layers)
    rows: list[tuple[str, float | None, str]] = [
        ("layers left dense", float(dense_layers), f"{dense_layers} of {len(plan.layers)}"),
        ("numbers kept", plan.kept, share_text(plan.kept)),
        ("bytes of the linears", float(plan.num_bytes), f"{bytes_text(plan.num_bytes)} of {bytes_text(dense_bytes)}"),
        ("predicted growth of the loss, nats a token", plan.damage, f"{plan.damage:.3g}"),
        ("predicted perplexity / dense", *_perplexity_of(plan.damage)),
    ]
    if plan.speedup is not None:
        rows.append(("predicted speedup", plan.speedup, f"{plan.speedup:.3f}x"))
    columns = (cells.left("figure", "Figure"), Column("value", "Value"))
    found = tuple((cells.word(name), Cell(value, text)) for name, value, text in [*rows, *measured])
    return Table("summary", f"Budget: {model_budget_text(plan.budget)}", columns, found, _where(plan))


def frontier_table(points: Sequence[ModelFrontierPoint]) -> Table:
    """Return the frontier of a model, as predicted from calibration: what can be had, and what it costs."""
    columns = (
        Column("kept", "Kept"),
        Column("bytes", "Bytes"),
        Column("dense_layers", "Dense layers"),
        Column("damage", "Damage, nats"),
        Column("perplexity_ratio", "Perplexity / dense"),
        Column("speedup", "Speedup"),
    )
    rows = tuple(_frontier_row(one) for one in points)
    return Table("frontier", "Frontier of the whole model, predicted", columns, rows, PREDICTED_NOTE)


def measured_table(points: Sequence[ModelFrontierPoint], measured: Sequence[ModelPoint]) -> Table:
    """Return measured models, with what the frontier predicts beside what was measured.

    Args:
        points: the frontier, dense first; none: nothing is said of predictions.
        measured: "dense", with which the others are compared, other ways to run the model, and choices.
    """
    columns = (
        cells.left("label", "Model"),
        Column("kept", "Kept"),
        Column("bytes", "Bytes"),
        Column("perplexity", "Perplexity [low, high]"),
        Column("perplexity_ratio", "/ dense"),
        Column("predicted_ratio", "Predicted"),
        Column("speedup", "Speedup [99 %]"),
        Column("predicted_speedup", "Predicted"),
        cells.left("note", "Note"),
    )
    rows = tuple(_measured_row(one) for one in placed(points, measured))
    if points:
        return Table("measured", "Measured beside predicted", columns, rows, MEASURED_NOTE)
    shown = [place for place, column in enumerate(columns) if not column.name.startswith("predicted")]
    rows = tuple(tuple(row[place] for place in shown) for row in rows)
    return Table("measured", "Measured", tuple(columns[place] for place in shown), rows)


def model_budget_text(budget: ModelBudget) -> str:
    """Return a model's budget in words."""
    parts = [] if budget.perplexity is None else [f"perplexity grows by at most {percent_text(budget.perplexity)}"]
    parts += [] if budget.keep is None else [f"at most {percent_text(budget.keep)} of the numbers are kept"]
    parts += [] if budget.speedup is None else [f"speedup at least {budget.speedup:g}x"]
    parts += [] if budget.max_bytes is None else [f"at most {bytes_text(budget.max_bytes)}"]
    return ", ".join(parts)


def share_text(share: float) -> str:
    """Return a share of numbers or bytes: 79.9 %."""
    return f"{share:.1%}".replace("%", " %")


def ratio_of_perplexity_text(ratio: float) -> str:
    """Return perplexity / dense perplexity: 1.0483x; more than 10000 is no figure of use."""
    return f"{ratio:.4f}x" if ratio < 10 else f"{ratio:.4g}x" if ratio < LARGEST_RATIO else f"over {LARGEST_RATIO:g}x"


def span_text(value: float, low: float | None, high: float | None, form: str) -> str:
    """Return a value with its interval where that is known: 24.52 [24.31, 24.70]."""
    shown = form.format(value)
    if low is None or high is None:
        return shown
    return f"{shown} [{form.format(low).rstrip('x')}, {form.format(high).rstrip('x')}]"


def _where(plan: ModelPlan) -> str:
    if plan.speedup is None:
        return ""
    loads = ", ".join(str(load) for load in plan.workloads)
    return f"Times of single layers on {plan.device_name or 'an unnamed device'}{f' at {loads}' if loads else ''}."


def _perplexity_of(damage: float) -> tuple[float | None, str]:
    ratio = math.exp(damage) if damage < math.log(LARGEST_RATIO) else math.inf
    return (ratio if ratio < math.inf else None), ratio_of_perplexity_text(ratio)


def _choice_row(one: LayerChoice) -> tuple[Cell, ...]:
    chosen = one.chosen
    share = chosen.numbers / one.dense.numbers
    return (
        cells.word(one.layer),
        cells.word(chosen.kind),
        MISSING if chosen.rank is None else cells.number(chosen.rank),
        Cell(share, share_text(share)),
        Cell(chosen.damage, f"{chosen.damage:.2g}"),
        cells.time(chosen.time_ns),
        cells.time(one.dense.time_ns),
        cells.word(one.reason),
    )


def _frontier_row(one: ModelFrontierPoint) -> tuple[Cell, ...]:
    return (
        Cell(one.kept, share_text(one.kept)),
        cells.size(one.num_bytes),
        cells.number(one.dense_layers),
        Cell(one.damage, f"{one.damage:.3g}"),
        Cell(*_perplexity_of(one.damage)),
        MISSING if one.speedup is None else Cell(one.speedup, f"{one.speedup:.3f}x"),
    )


def _measured_row(one: Placed) -> tuple[Cell, ...]:
    point, ratio = one.point, one.perplexity_ratio
    return (
        cells.word(point.label),
        Cell(point.kept, share_text(point.kept)),
        cells.size(point.num_bytes),
        _span(point.perplexity, point.perplexity_low, point.perplexity_high, "{:.3f}"),
        MISSING if ratio is None else Cell(ratio, ratio_of_perplexity_text(ratio)),
        MISSING if one.damage is None else Cell(*_perplexity_of(one.damage)),
        _span(point.speedup, point.speedup_low, point.speedup_high, "{:.3f}x"),
        MISSING if one.speedup is None else Cell(one.speedup, f"{one.speedup:.3f}x"),
        cells.word(point.note),
    )


def _span(value: float | None, low: float | None, high: float | None, form: str) -> Cell:
    return MISSING if value is None else Cell(value, span_text(value, low, high, form))
