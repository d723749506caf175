"""Charts hold what was measured, in the right place and colour; drawings are well-formed and escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrows.reporting import _axes, _charts
from narrows.reporting._part import parts
from narrows.reporting._plot import Axis, Chart, Point, Series, draw, ordered_style
from reporting.reports import dense_speed, make_report, with_speedup

SMALL = {"tokens": (64, 512, 4096), "ranks": (64, 1024), "rounds": 8, "noise": 0.002}


def halving(tokens, rank):
    return 8.0 * (tokens / 4096) * (64 / rank)


@pytest.fixture(scope="module")
def part():
    return parts(make_report(time_ns=with_speedup(halving), **SMALL))[0]


def parse(figure):
    return ET.fromstring(figure)  # noqa: S314  # made by this package


def texts(figure):
    return [element.text for element in parse(figure).iter("title")]


def test_speedup_by_rank_has_one_line_for_each_length_with_its_interval(part):
    chart = _charts.speedup_by_rank(part)
    assert [series.name for series in chart.series] == ["64 tokens", "512 tokens", "4096 tokens"]
    last = chart.series[-1].points
    assert [point.x for point in last] == [64, 1024]
    assert last[0].y == pytest.approx(8, rel=0.01)
    assert last[0].low <= last[0].y <= last[0].high


def test_every_speedup_carries_the_error_of_every_weight(part):
    chart = _charts.speedup_by_rank(part)
    cells = dict(zip(chart.columns, chart.series[-1].points[0].cells, strict=True))
    assert cells["Tokens"] == "4096"
    assert cells["Rank"] == "64"
    assert {"Error, gaussian", "Error, power", "Error, product"} <= set(cells)
    assert cells["Error, gaussian"].endswith("%")


def test_the_fastest_implementation_stands_for_a_rank():
    def time_ns(tokens, rank, variant):
        return dense_speed(tokens) / (1 if rank is None else {"three": 2, "two": 4}[variant])

    part = parts(make_report(time_ns=time_ns, **SMALL))[0]
    assert {c.row.variant for c in part.best.values()} == {"two"}


def test_best_by_length_stays_at_dense_where_no_rank_is_within_the_error(part):
    gaussian = next(s for s in _charts.best_by_length(part).series if s.key == "w0")
    assert [point.y for point in gaussian.points] == [1.0, 1.0, 1.0]
    assert gaussian.points[0].cells[2] == "dense"


def test_best_by_length_takes_the_fastest_rank_within_the_error():
    errors = {64: 0.5, 1024: 0.005}
    report = make_report(
        time_ns=with_speedup(lambda _t, r: 4.0 if r == 64 else 2.0), errors=lambda _w, _t, r: errors[r], **SMALL
    )
    chart = _charts.best_by_length(parts(report)[0])
    any_error, within = chart.series[0], chart.series[1]
    assert any_error.points[0].cells[2] == "rank 64"
    assert within.points[0].cells[2] == "rank 1024"
    assert within.points[0].y == pytest.approx(2, rel=0.01)


def test_published_figures_stand_beside_the_shape_they_were_published_for(part):
    published = _charts.best_by_length(part).series[-1]
    assert published.style == "published"
    assert "unknown GPU" in published.name
    assert [point.y for point in published.points] == [1.16, 2.97, 9.46]


def test_published_figures_do_not_stand_beside_another_shape():
    other = parts(make_report(features=2048, **SMALL))[0]
    assert "published" not in {series.style for series in _charts.best_by_length(other).series}


def test_a_point_is_hollow_when_another_is_faster_and_as_exact():
    report = make_report(
        time_ns=with_speedup(lambda _t, r: {64: 4.0, 128: 3.0, 256: 2.0, 512: 0.5}[r]),
        errors=lambda _w, _t, r: {64: 0.5, 128: 0.5, 256: 0.1, 512: 0.0}[r],
        tokens=(64,),
        ranks=(64, 128, 256, 512),
        rounds=8,
    )
    points = _charts.speedup_by_error(parts(report)[0])[0].series[0].points
    assert [point.is_hollow for point in points] == [False, True, False, True]


def test_there_is_one_error_panel_for_each_weight_on_shared_axes(part):
    panels = _charts.speedup_by_error(part)
    assert [panel.title for panel in panels] == ["gaussian", "power", "product"]
    assert len({(panel.x, panel.y) for panel in panels}) == 1


def test_time_stands_beside_its_limit_and_its_share():
    report = make_report(share=0.25, **SMALL)
    chart = _charts.time_and_limit(parts(report)[0])
    assert [text for _, text in chart.x.ticks] == ["dense", "64", "1024"]
    for point in (p for series in chart.series for p in series.points):
        assert point.second / point.y == pytest.approx(0.25, rel=0.02)
        assert point.cells[-1] in {"24%", "25%", "26%"}


def test_time_without_a_limit_has_no_stem_and_says_so():
    report = make_report(**SMALL)
    report = replace(report, rows=tuple(replace(row, limit_ns=None) for row in report.rows))
    chart = _charts.time_and_limit(parts(report)[0])
    assert chart.series[0].points[0].cells[-2:] == ("not known", "not known")
    assert 'class="stem"' not in draw(chart, "c")


def test_memory_not_measured_is_an_outline_at_the_formula():
    report = make_report(peak_bytes=lambda _t, rank, _v: None if rank is None else 7 << 20, **SMALL)
    dense, thin, *_ = _charts.memory_by_rank(parts(report)[0]).series[0].points
    assert dense.is_hollow
    assert dense.y == dense.second
    assert not thin.is_hollow
    assert thin.y == 7 << 20
    assert thin.cells[3] == "7.00 MiB"


def test_each_mode_and_cache_state_is_a_group_of_its_own_in_a_fixed_order():
    report = make_report(modes=("graph", "eager"), caches=("cold", "hot"), **SMALL)
    assert [part.name for part in parts(report)] == ["eager, hot", "eager, cold", "graph, hot", "graph, cold"]


def test_a_report_without_measured_rows_has_no_groups():
    report = make_report(**SMALL)
    rows = tuple(replace(row, samples_ns=(), rounds=(), status="does not fit", reason="r") for row in report.rows)
    assert parts(replace(report, rows=rows)) == ()


def test_a_single_round_is_drawn_although_its_interval_is_unknown():
    report = make_report(**{**SMALL, "rounds": 1})
    figures = [draw(chart, "c") for chart in _charts.charts(parts(report)[0])]
    assert not any("nan" in figure or re.search(r"\d inf|inf \d|Linf", figure) for figure in figures)


def test_every_drawing_is_well_formed_with_title_description_hover_text_and_table(part):
    for chart in _charts.charts(part):
        figure = draw(chart, "c")
        root = parse(figure)
        num_points = sum(len(series.points) for series in chart.series)
        assert texts(figure)[0] == chart.title
        assert len(texts(figure)) == num_points + 1
        assert root.find(".//desc").text.startswith(chart.title)
        assert len(root.findall(".//tbody/tr")) == num_points


def test_names_in_a_drawing_are_escaped():
    evil = '</svg><script>alert("1")</script>'
    axis = Axis(evil, 1, 2, ((1, evil),))
    point = Point(1, 1, (evil,), label=(evil,))
    chart = Chart(evil, evil, evil, (evil,), axis, axis, (Series(evil, evil, "o0", 0, (point,), end_label=evil),))
    figure = draw(chart, "c")
    assert "<script" not in figure
    assert figure.count("</svg>") == 1
    assert evil in texts(figure)


def test_end_labels_never_cover_each_other():
    report = make_report(time_ns=with_speedup(lambda _t, _r: 2.0), rounds=8)
    root = parse(draw(_charts.speedup_by_rank(parts(report)[0]), "c"))
    places = sorted(float(text.get("y")) for text in root.iter("text") if text.get("class") == "end")
    assert len(places) == 7
    assert min(b - a for a, b in pairwise(places)) >= 12.9


def test_ordered_colours_spread_over_the_whole_ramp():
    assert [ordered_style(i, 3) for i in range(3)] == ["o0", "o3", "o6"]
    assert ordered_style(0, 1) == "o6"
    assert [ordered_style(i, 7) for i in range(7)] == [f"o{i}" for i in range(7)]


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20))
def test_an_axis_keeps_order_and_shows_every_value(values):
    axis = _axes.ratio_axis("speedup", values)
    places = [axis.at(value, 0, 100) for value in sorted(values)]
    assert places == sorted(places)
    assert axis.low < min(values)
    assert max(values) < axis.high
    assert len(axis.ticks) >= 3
    assert all(axis.low <= tick <= axis.high for tick, _ in axis.ticks)


@given(st.lists(st.floats(1e2, 1e11), min_size=1, max_size=9))
def test_time_and_memory_axes_have_readable_ticks(values):
    for axis in (_axes.time_axis("time", values), _axes.memory_axis("memory", values)):
        assert len(axis.ticks) <= 13
        assert len({text for _, text in axis.ticks}) == len(axis.ticks)


def test_an_error_axis_starts_before_exact_and_gives_one_percent_its_own_place():
    axis = _axes.error_axis("error", [0.0, 1.0])
    assert [text for _, text in axis.ticks if text in {"0", "1%", "100%"}] == ["0", "1%", "100%"]
    assert axis.at(0.01, 0, 100) - axis.at(0.0, 0, 100) > 8
    assert axis.at(0.0, 0, 100) > 0


def test_values_outside_an_axis_sit_on_its_edge():
    axis = Axis("x", 1, 10, ())
    assert axis.at(0.0, 0, 100) == 0
    assert axis.at(float("inf"), 0, 100) == 100
