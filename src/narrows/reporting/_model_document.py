"""A model's plan and frontier as one HTML file: no network, light and dark, readable without scripts and on paper."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from narrows.reporting._headline import Tile
from narrows.reporting._html import _section
from narrows.reporting._model import (
    frontier_table,
    measured_table,
    model_budget_text,
    model_plan_table,
    model_summary_table,
    ratio_of_perplexity_text,
    share_text,
    span_text,
)
from narrows.reporting._model_chart import kept_by_block, quality_by_bytes, quality_by_speed
from narrows.reporting._model_points import beaten_by, placed
from narrows.reporting._page import page
from narrows.reporting._plot import draw, marker_svg
from narrows.reporting._records import Section
from narrows.reporting._text import bytes_text, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows._values import ModelPlan, ModelPoint
    from narrows.planning import ModelFrontierPoint
    from narrows.reporting._model_points import Against, Placed
    from narrows.reporting._plot import Chart

TITLE = "What each layer of the model becomes"
SAME_KEPT = 0.002  # between a plan and the measured model that is it


def model_document(
    plan: ModelPlan, points: Sequence[ModelFrontierPoint], checks: Sequence[ModelPoint] | None = None
) -> str:
    """Return a plan, its frontier and what was measured as one self-contained HTML page.

    Args:
        plan: what was decided.
        points: the frontier, dense first.
        checks: measured models: "dense", with which the others are compared, other ways to run it, and choices.
    """
    measured = tuple(checks or ())
    sections = model_sections(plan, points, measured)
    told = "".join(_section(section, index) for index, section in enumerate(sections))
    body = (_header(plan, points, measured, sections), _charts(plan, points, measured), told)
    return page(TITLE, "\n".join(body))


def model_sections(
    plan: ModelPlan, points: Sequence[ModelFrontierPoint], measured: Sequence[ModelPoint] = ()
) -> tuple[Section, ...]:
    """Return the sections: the plan in all, who beats whom in measurement, what else can be had, every layer."""
    findings = [sentence for against in _AGAINST for sentence in findings_of(placed(points, measured), against)]
    table = measured_table(points, measured)
    return (
        Section("The plan in all", tables=(model_summary_table(plan),)),
        *([Section("What was measured", points=tuple(findings), tables=(table,))] if measured else []),
        Section("The frontier", tables=(frontier_table(points),)),
        Section("Every layer", (_READING,), tables=(model_plan_table(plan),)),
    )


_AGAINST: tuple[Against, ...] = ("speedup", "bytes")
_READING = (
    "Damage is the expected growth of the loss, in nats a token; perplexity is multiplied by its exponential. What a "
    "budget pays for a saving is the damage that the same saving costs where it is cheapest among all layers."
)


def _header(
    plan: ModelPlan,
    points: Sequence[ModelFrontierPoint],
    measured: Sequence[ModelPoint],
    sections: Sequence[Section],
) -> str:
    lede = f"Budget: {model_budget_text(plan.budget)}."
    return header_html(TITLE, lede, headline(plan, placed(points, measured)), sections)


def header_html(title: str, lede: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    """Return the top of a page: title, what it is of, figures, and links to charts and sections."""
    shown = "".join(
        f'<div><dt>{escape(tile.name)}</dt><dd class="figure">{escape(tile.figure)}</dd>'
        f"<dd>{escape(tile.detail)}</dd></div>"
        for tile in tiles
    )
    names = [("charts", "Charts"), *((f"s{index}", section.title) for index, section in enumerate(sections))]
    links = "".join(f'<li><a href="#{anchor}">{escape(name)}</a></li>' for anchor, name in names)
    return (
        f'<header><p class="mark">narrows</p><h1>{escape(title)}</h1><p class="lede">{escape(lede)}</p>'
        f'<dl class="tiles">{shown}</dl><nav aria-label="Sections"><ul>{links}</ul></nav></header>'
    )


def headline(plan: ModelPlan, measured: Sequence[Placed]) -> tuple[Tile, ...]:
    """Return the plan's figures for the top of the page, measured ones where this plan was measured."""
    dense_layers = sum(one.chosen.form == "dense" for one in plan.layers)
    kept = Tile("Numbers kept", share_text(plan.kept), f"{dense_layers} of {len(plan.layers)} layers stay dense")
    itself = next((one for one in measured if one.is_choice and abs(one.point.kept - plan.kept) <= SAME_KEPT), None)
    return (kept, _quality_tile(plan, itself), *_speed_tiles(plan, itself), _bytes_tile(plan))


def _quality_tile(plan: ModelPlan, itself: Placed | None) -> Tile:
    predicted = ratio_of_perplexity_text(math.exp(plan.damage) if plan.damage < 700 else math.inf)
    if itself is None or itself.perplexity_ratio is None or itself.point.perplexity is None:
        return Tile("Perplexity / dense, predicted", predicted, f"damage {plan.damage:.3g} nats a token")
    point = itself.point
    found = span_text(itself.point.perplexity, point.perplexity_low, point.perplexity_high, "{:.2f}")
    detail = f"perplexity {found}; predicted {predicted}"
    return Tile("Perplexity / dense, measured", ratio_of_perplexity_text(itself.perplexity_ratio), detail)


def _speed_tiles(plan: ModelPlan, itself: Placed | None) -> tuple[Tile, ...]:
    loads = listed(plan.workloads)
    if itself is not None and itself.point.speedup is not None:
        point = itself.point
        found = span_text(itself.point.speedup, point.speedup_low, point.speedup_high, "{:.3f}x")
        predicted = "" if plan.speedup is None else f"; predicted {plan.speedup:.3f}x"
        return (Tile("Speedup, measured", f"{point.speedup:.2f}x", f"{found} at {loads}{predicted}"),)
    if plan.speedup is None:
        return ()
    return (
        Tile("Speedup, predicted", f"{plan.speedup:.2f}x", f"at {loads}, on {plan.device_name or 'an unnamed device'}"),
    )


def _bytes_tile(plan: ModelPlan) -> Tile:
    dense = sum(one.dense.bytes for one in plan.layers)
    return Tile("Bytes of the linears", bytes_text(plan.num_bytes), f"dense: {bytes_text(dense)} ({plan.dtype})")


def _charts(plan: ModelPlan, points: Sequence[ModelFrontierPoint], measured: Sequence[ModelPoint]) -> str:
    pair = pair_html([quality_by_speed(points, measured, plan), quality_by_bytes(points, measured, plan)], "m")
    blocks = kept_by_block(plan)
    wide = ""
    if blocks is not None:
        roomy = f'<div class="scroll"><div style="min-width: 640px">{draw(blocks, blocks.key)}</div></div>'
        wide = f'<div class="group wide">{_legend(blocks)}{roomy}</div>'
    return f'<section id="charts"><h2>Charts</h2>{pair}{wide}</section>'


def pair_html(drawn: Sequence[Chart | None], prefix: str) -> str:
    """Return charts side by side, each with its own legend; None is left out.

    Args:
        prefix: makes names within the page unlike those of other charts.
    """
    figures = (_with_keys(chart, draw(chart, f"{prefix}{i}")) for i, chart in enumerate(drawn) if chart is not None)
    return f'<div class="pair">{"".join(figures)}</div>'


def _with_keys(chart: Chart, figure: str) -> str:
    keys = "".join(
        f'<li class="key">{marker_svg(one.style, one.marker)}{escape(one.name)}</li>' for one in chart.series
    )
    return figure.replace('<details class="data">', f'<ul class="keys">{keys}</ul><details class="data">', 1)


def _legend(chart: Chart) -> str:
    buttons = "".join(
        f'<button type="button" class="key" data-key="{one.key}" aria-pressed="false">'
        f"{marker_svg(one.style, one.marker)}{escape(one.name)}</button>"
        for one in chart.series
    )
    return f'<div class="legend" role="group" aria-label="Highlight a kind"><span>Layers</span>{buttons}</div>'


def findings_of(measured: Sequence[Placed], against: Against) -> list[str]:
    """Return who beats whom among the measured models, dense and int8 included."""
    found = [
        f"{other.point.label} beats {one.point.label}: {_against(other, one, against)}."
        for one in measured
        if (other := beaten_by(one, measured, against)) is not None
    ]
    kept = [one for one in measured if _is_compared(one, against) and beaten_by(one, measured, against) is None]
    if len(kept) > 1:
        what = "speed" if against == "speedup" else "bytes"
        found.append(f"By quality and {what}, nothing measured beats {listed([one.point.label for one in kept])}.")
    return found


def _is_compared(one: Placed, against: Against) -> bool:
    return one.perplexity_ratio is not None and (against == "bytes" or one.point.speedup is not None)


def _against(winner: Placed, loser: Placed, against: Against) -> str:
    """Return both figures of both: "speedup 1.500x against 1.050x, perplexity 1.0010x against 1.2500x of dense's"."""
    cost = f"{bytes_text(winner.point.num_bytes)} against {bytes_text(loser.point.num_bytes)}"
    if against == "speedup":
        cost = f"speedup {winner.point.speedup:.3f}x against {loser.point.speedup:.3f}x"
    quality = [ratio_of_perplexity_text(one.perplexity_ratio or math.nan) for one in (winner, loser)]
    return f"{cost}, perplexity {quality[0]} against {quality[1]} of dense's"
