"""Inline SVG made from plain records: axes, lines with interval bands, markers, a table of the same values.

A leaf: knows nothing of reports. Colours are CSS classes (o0..o6 for ordered series, n0..n5 for named
ones, published), so that one drawing serves light and dark. Every point carries its exact values
as a `<title>`, which browsers show on hover without any script.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

NUM_ORDERED = 7
NUM_NAMED = 6
LEFT, RIGHT, TOP, BOTTOM = 50.0, 14.0, 14.0, 46.0  # SVG units around the plotting area
LETTER = 8.0  # SVG units of one letter of a tick, at the size that phones get
LABEL_ROOM = 13.0  # SVG units between two labels at the ends of lines

Scale = Literal["log", "linear", "root"]
_SCALES: dict[Scale, Callable[[float], float]] = {
    "log": math.log,
    "linear": float,
    "root": lambda v: math.copysign(math.sqrt(abs(v)), v),
}

MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.5-3.5h7v7h-7z",
    "M0-5L5 0L0 5L-5 0z",
    "M0-4.6L4.7 3.6h-9.4z",
    "M0 4.6L4.7-3.6h-9.4z",
    "M-4.2 0L-2.1-3.9h4.2L4.2 0L2.1 3.9h-4.2z",
    "M4.6 0L-3.6 4.7v-9.4z",
)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its range (both above 0 for "log") and the ticks that are drawn where they have room."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    scale: Scale = "log"

    def at(self, value: float, start: float, end: float) -> float:
        """Return the position of a value between two positions; values outside sit on the edge."""
        inside = min(max(value, self.low), self.high)
        low, high, here = (_SCALES[self.scale](v) for v in (self.low, self.high, inside))
        share = (here - low) / (high - low)
        return start + share * (end - start)


@dataclass(frozen=True, slots=True)
class Point:
    """One value.

    Attributes:
        x, y: on the axes of the chart.
        cells: what the hover text and the table say, one for every column of the chart.
        low, high: interval of y.
        second: another y at the same x, drawn as a bar joined to the marker (a limit, a formula).
        is_hollow: drawn as an outline.
        label: lines of text above the marker.

    """

    x: float
    y: float
    cells: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    second: float | None = None
    is_hollow: bool = False
    label: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour and marker.

    Attributes:
        key: joins the series to its legend entry.
        style: CSS class of the colour.
        is_joined: points are joined by a line, outlines left out.
        level: y of a faint line across the whole chart.
        end_label: text beside the first point.

    """

    name: str
    key: str
    style: str
    marker: int
    points: tuple[Point, ...]
    is_joined: bool = True
    level: float | None = None
    end_label: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """One drawing with its words.

    Attributes:
        key: names the figure in the page; several panels may share one.
        title, note: shown above; the note says how to read it.
        columns: names of the points' cells.
        zone: (low, high) of a shaded band on the y axis.
        width, height: SVG units.

    """

    key: str
    title: str
    note: str
    columns: tuple[str, ...]
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    zone: tuple[float, float] | None = None
    width: float = 480.0
    height: float = 340.0

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return SVG coordinates of a value."""
        return self.x.at(x, LEFT, self.width - RIGHT), self.y.at(y, self.height - BOTTOM, TOP)


def ordered_style(index: int, count: int) -> str:
    """Return the colour class of entry `index` of `count` ordered ones, spread over the whole ramp."""
    last = NUM_ORDERED - 1
    return f"o{last if count == 1 else round(index * last / (count - 1))}"


def marker_svg(style: str, marker: int) -> str:
    """Return a legend swatch: a short line with its marker."""
    shape = MARKERS[marker % len(MARKERS)]
    return (
        f'<svg class="swatch {style}" viewBox="-11 -6 22 12" aria-hidden="true">'
        f'<path class="line" d="M-11 0H11"/><path class="pt" d="{shape}"/></svg>'
    )


def draw(chart: Chart, identity: str) -> str:
    """Return a `<figure>`: title, note, the SVG and the same values as a table.

    Args:
        chart: what to draw.
        identity: unique in the page; joins the SVG to its title and description.

    """
    ends = _end_labels(chart)
    series = "".join(_series(chart, one, ends.get(one.key)) for one in chart.series)
    words = f"{chart.title}. {chart.note}".strip()
    return (
        f'<figure class="chart" data-chart="{escape(chart.key)}"><figcaption><h4>{escape(chart.title)}</h4>'
        f"<p>{escape(chart.note)}</p></figcaption>"
        f'<svg viewBox="0 0 {chart.width:g} {chart.height:g}" role="img" tabindex="0" '
        f'aria-labelledby="{identity}t" aria-describedby="{identity}d">'
        f'<title id="{identity}t">{escape(chart.title)}</title><desc id="{identity}d">{escape(words)}</desc>'
        f"{_zone(chart)}{_x_axis(chart)}{_y_axis(chart)}{series}</svg>{_table(chart)}</figure>"
    )


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _zone(chart: Chart) -> str:
    if chart.zone is None or chart.zone[1] <= chart.y.low or chart.zone[0] >= chart.y.high:
        return ""
    low, high = chart.zone
    _, top = chart.place(chart.x.high, high)
    _, bottom = chart.place(chart.x.high, low)
    size = f'width="{_n(chart.width - RIGHT - LEFT)}" height="{_n(bottom - top)}"'
    return f'<rect class="zone" x="{_n(LEFT)}" y="{_n(top)}" {size}/>'


def _x_axis(chart: Chart) -> str:
    base = chart.height - BOTTOM
    parts = [f'<path class="base" d="M{_n(LEFT)} {_n(base)}H{_n(chart.width - RIGHT)}"/>']
    end = -math.inf
    for value, text in chart.x.ticks:
        x = chart.x.at(value, LEFT, chart.width - RIGHT)
        half = LETTER * len(text) / 2
        if x - half > end:
            parts.append(f'<path class="tick" d="M{_n(x)} {_n(base)}v4"/>')
            parts.append(f'<text x="{_n(x)}" y="{_n(base + 17)}" text-anchor="middle">{escape(text)}</text>')
            end = x + half
    middle = (LEFT + chart.width - RIGHT) / 2
    label = f'<text class="name" x="{_n(middle)}" y="{_n(chart.height - 8)}" text-anchor="middle">'
    return f'<g class="axis">{"".join(parts)}{label}{escape(chart.x.label)}</text></g>'


def _y_axis(chart: Chart) -> str:
    parts = []
    for value, text in chart.y.ticks:
        y = chart.y.at(value, chart.height - BOTTOM, TOP)
        parts.append(f'<path class="grid" d="M{_n(LEFT)} {_n(y)}H{_n(chart.width - RIGHT)}"/>')
        parts.append(f'<text x="{_n(LEFT - 7)}" y="{_n(y + 4)}" text-anchor="end">{escape(text)}</text>')
    return f'<g class="axis">{"".join(parts)}</g>'


def _series(chart: Chart, series: Series, end_y: float | None) -> str:
    body = [_level(chart, series), _joined(chart, series) if series.is_joined else _bars(chart, series)]
    shape = MARKERS[series.marker % len(MARKERS)]
    for point in series.points:
        x, y = chart.place(point.x, point.y)
        tip = "\n".join(f"{name}: {cell}" for name, cell in zip(chart.columns, point.cells, strict=True) if cell)
        hollow = " hollow" if point.is_hollow else ""
        body.append(
            f'<path class="pt{hollow}" transform="translate({_n(x)} {_n(y)})" d="{shape}">'
            f"<title>{escape(tip)}</title></path>"
        )
        for index, line in enumerate(reversed(point.label)):
            body.append(f'<text class="over" x="{_n(x)}" y="{_n(y - 9 - 11 * index)}">{escape(line)}</text>')
    if end_y is not None:
        x, _ = chart.place(series.points[0].x, series.points[0].y)
        body.append(f'<text class="end" x="{_n(x - 9)}" y="{_n(end_y + 4)}">{escape(series.end_label)}</text>')
    return (
        f'<g class="series {series.style}" data-key="{escape(series.key)}" data-series="{escape(series.name)}">'
        f"{''.join(body)}</g>"
    )


def _level(chart: Chart, series: Series) -> str:
    if series.level is None:
        return ""
    _, y = chart.place(chart.x.low, series.level)
    return f'<path class="level" d="M{_n(LEFT)} {_n(y)}H{_n(chart.width - RIGHT)}"/>'


def _joined(chart: Chart, series: Series) -> str:
    points = [point for point in series.points if not point.is_hollow]
    spots = [chart.place(point.x, point.y) for point in points]
    line = "L".join(f"{_n(x)} {_n(y)}" for x, y in spots)
    ranged = [p for p in points if p.low is not None and p.high is not None]
    upper = [chart.place(p.x, p.high) for p in ranged if p.high is not None]
    lower = [chart.place(p.x, p.low) for p in ranged if p.low is not None]
    outline = "L".join(f"{_n(x)} {_n(y)}" for x, y in upper + lower[::-1])
    band = f'<path class="band" d="M{outline}z"/>' if len(ranged) > 1 else ""
    return f'{band}<path class="line" d="M{line}"/>' if len(spots) > 1 else ""


def _bars(chart: Chart, series: Series) -> str:
    parts = []
    for point in series.points:
        if point.second is not None:
            x, y = chart.place(point.x, point.y)
            _, end = chart.place(point.x, point.second)
            parts.append(f"M{_n(x)} {_n(y)}V{_n(end)}M{_n(x - 3.5)} {_n(end)}h7")
    return f'<path class="stem" d="{"".join(parts)}"/>' if parts else ""


def _end_labels(chart: Chart) -> dict[str, float]:
    """Return y of every end label, pushed apart so that none covers another."""
    wanted = [(chart.place(s.points[0].x, s.points[0].y)[1], s.key) for s in chart.series if s.end_label and s.points]
    placed: dict[str, float] = {}
    y = -math.inf
    overshoot = 0.0
    for want, key in sorted(wanted):
        y = max(want, y + LABEL_ROOM)
        placed[key] = y
        overshoot = max(overshoot, y - (chart.height - BOTTOM - 4))
    return {key: y - overshoot for key, y in placed.items()}


def _table(chart: Chart) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in chart.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in point.cells) + "</tr>"
        for series in chart.series
        for point in series.points
    )
    return (
        f'<details class="data"><summary>Values</summary><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )
