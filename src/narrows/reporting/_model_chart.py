"""Charts of a whole model: quality against speed and against bytes, and what is kept of every layer."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from narrows.reporting._axes import ratio_axis
from narrows.reporting._model import ratio_of_perplexity_text, share_text, span_text
from narrows.reporting._model_points import DENSE, beaten_by, placed
from narrows.reporting._plot import NUM_NAMED, Axis, Chart, Point, Series, ordered_style
from narrows.reporting._text import bytes_text, percent_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from narrows._values import LayerChoice, ModelPlan, ModelPoint
    from narrows.planning import ModelFrontierPoint
    from narrows.reporting._model_points import Against, Placed

COLUMNS = ("Model", "Perplexity / dense", "Speedup", "Bytes", "Kept", "Note")
SHOWN = 0.5  # growth of perplexity up to which the frontier is drawn where nothing was measured
LEAST_SHOWN = 0.1
BEYOND = 1.5  # times the largest measured growth, where something was
GROWTHS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0, 1000.0)
TICK_ROOM = 0.06  # of the axis between two ticks
LETTER = 5.5  # SVG units of one letter of a label
LABEL_HEIGHT = 16.0  # SVG units
MOST_TICKS = 10
BLOCK = re.compile(r"^(?:.*\.)?(\d+)\.(.+)$")  # the last number in a layer's name is its block's


def quality_by_speed(
    points: Sequence[ModelFrontierPoint], measured: Sequence[ModelPoint], plan: ModelPlan | None = None
) -> Chart | None:
    """Return growth of perplexity against speedup; None where no speedup is known."""
    series = _View.of(points, measured, "speedup").series(plan)
    xs = [point.x for one in series for point in one.points]
    return _chart("speed", "fast", series, ratio_axis("speedup at the workload", xs)) if series else None


def quality_by_bytes(
    points: Sequence[ModelFrontierPoint], measured: Sequence[ModelPoint], plan: ModelPlan | None = None
) -> Chart | None:
    """Return growth of perplexity against bytes, as a share of dense's; None where no point can be drawn."""
    series = _View.of(points, measured, "bytes").series(plan)
    xs = [point.x for one in series for point in one.points]
    return _chart("bytes", "small", series, _share_axis("bytes of the linears / dense", xs)) if series else None


def _chart(what: str, word: str, series: tuple[Series, ...], x: Axis) -> Chart:
    better = "right" if what == "speed" else "left"
    line = "Line: the frontier, as predicted. " if any(one.key == "frontier" for one in series) else ""
    chart = Chart(
        key=f"quality-{what}",
        title=f"Quality against {what}",
        note=f"How far perplexity is above dense's, on a square-root axis: down and {better} is better. {line}"
        f"Markers: as measured; an outline where another is at least as good and as {word}.",
        columns=COLUMNS,
        x=x,
        y=_growth_axis([end for one in series for p in one.points for end in (p.y, p.low, p.high) if end is not None]),
        series=series,
    )
    return replace(chart, series=tuple(_readable(chart)))


def _growth_axis(values: Sequence[float]) -> Axis:
    """Return a square-root axis of growth around 0, where little of it has room too."""
    low, high = min(0.0, *values), 1.15 * max(*values, 0.01)
    ticks: list[float] = []
    for tick in GROWTHS:
        if tick <= high and (not ticks or math.sqrt(tick) - math.sqrt(ticks[-1]) >= TICK_ROOM * math.sqrt(high)):
            ticks.append(tick)
    names = tuple((tick, f"+{percent_text(tick)}" if tick else "0") for tick in ticks)
    return Axis("perplexity above dense", low - 0.001 * high, high, names, "root")


def _readable(chart: Chart) -> Iterator[Series]:
    """Yield the series without labels that would cover another's; hover texts and the table have them all."""
    taken: list[tuple[float, float, float]] = []
    for series in chart.series:
        kept = []
        for point in series.points:
            x, y = chart.place(point.x, point.y)
            half = LETTER * max((len(line) for line in point.label), default=0) / 2
            is_free = all(abs(x - ax) > half + wide or abs(y - ay) > LABEL_HEIGHT for ax, ay, wide in taken)
            if point.label and is_free:
                taken.append((x, y, half))
            kept.append(point if is_free else replace(point, label=()))
        yield replace(series, points=tuple(kept))


@dataclass(frozen=True, slots=True)
class _View:
    """Points and measured models with one of speed and bytes on the x axis; only models that have a place there."""

    points: Sequence[ModelFrontierPoint]
    measured: tuple[Placed, ...]
    against: Against

    @classmethod
    def of(cls, points: Sequence[ModelFrontierPoint], measured: Sequence[ModelPoint], against: Against) -> _View:
        """Return the view of what can be drawn."""
        found = placed(points, measured)
        is_speed = against == "speedup"
        known = tuple(
            one for one in found if one.perplexity_ratio is not None and not (is_speed and one.point.speedup is None)
        )
        return cls(points, known, against)

    def series(self, plan: ModelPlan | None) -> tuple[Series, ...]:
        """Return the frontier, the plan, every measured model that is no choice of forms, and those that are."""
        choices = [one for one in self.measured if one.is_choice]
        others = [one for one in self.measured if not one.is_choice]
        found = [*self._frontier(), *self._plan(plan)]
        for place, one in enumerate(others):
            style = "ink" if one.point.label == DENSE else f"n{1 + place % (NUM_NAMED - 1)}"
            found.append(self._series(f"{one.point.label}, measured", f"other{place}", (style, place + 1), [one]))
        if choices:
            found.append(self._series("choices, measured", "choices", ("n0", 0), choices))
        return tuple(found)

    def _x(self, speedup: float | None, num_bytes: int) -> float | None:
        return speedup if self.against == "speedup" else num_bytes / self._dense_bytes

    @property
    def _dense_bytes(self) -> int:
        if self.points:
            return self.points[0].num_bytes
        return next(one.point.num_bytes for one in self.measured if one.point.label == DENSE)

    @property
    def _shown(self) -> float:
        """The largest growth that is drawn: no prediction reaches far beyond what was measured."""
        grown = [(one.perplexity_ratio or 1.0) - 1 for one in self.measured]
        return max(LEAST_SHOWN, *(BEYOND * one for one in grown)) if grown else SHOWN

    def _frontier(self) -> list[Series]:
        drawn = []
        for one in self.points:
            x, growth = self._x(one.speedup, one.num_bytes), one.perplexity_ratio - 1
            if x is not None and growth <= self._shown:
                cells = _cells("predicted", one.perplexity_ratio, one.speedup, one.num_bytes, one.kept)
                drawn.append(Point(x, growth, cells))
        return [Series("frontier, predicted", "frontier", "published", 0, tuple(drawn))] if len(drawn) > 1 else []

    def _plan(self, plan: ModelPlan | None) -> list[Series]:
        x = None if plan is None else self._x(plan.speedup, plan.num_bytes)
        if plan is None or x is None or plan.damage > math.log1p(self._shown):
            return []
        cells = _cells("this plan, predicted", math.exp(plan.damage), plan.speedup, plan.num_bytes, plan.kept)
        point = Point(x, math.expm1(plan.damage), cells)
        return [Series("this plan, predicted", "plan", "n3", 2, (point,), is_joined=False)]

    def _series(self, name: str, key: str, look: tuple[str, int], ones: Sequence[Placed]) -> Series:
        style, marker = look
        ordered = sorted(ones, key=lambda one: one.point.kept, reverse=True)
        return Series(name, key, style, marker, tuple(map(self._measured_point, ordered)), is_joined=False)

    def _measured_point(self, one: Placed) -> Point:
        point, ratio, x = one.point, one.perplexity_ratio, self._x(one.point.speedup, one.point.num_bytes)
        assert ratio is not None
        assert point.perplexity is not None
        assert x is not None
        scale = ratio / point.perplexity
        low = None if point.perplexity_low is None else point.perplexity_low * scale
        high = None if point.perplexity_high is None else point.perplexity_high * scale
        speed = "not measured"
        if point.speedup is not None:
            speed = span_text(point.speedup, point.speedup_low, point.speedup_high, "{:.3f}x")
        cells = (
            point.label,
            span_text(ratio, low, high, "{:.4f}x"),
            speed,
            bytes_text(point.num_bytes),
            share_text(point.kept),
            point.note,
        )
        is_beaten = beaten_by(one, self.measured, self.against) is not None
        ends = [None if end is None else end - 1 for end in (low, high)]
        return Point(x, ratio - 1, cells, ends[0], ends[1], is_hollow=is_beaten, label=(point.label,))


def _cells(name: str, ratio: float, speedup: float | None, num_bytes: int, kept: float) -> tuple[str, ...]:
    speed = "not known" if speedup is None else f"{speedup:.3f}x"
    return (name, ratio_of_perplexity_text(ratio), speed, bytes_text(num_bytes), share_text(kept), "")


def _share_axis(label: str, shares: Sequence[float]) -> Axis:
    """Return a linear axis of shares from 0, with a tick each quarter."""
    high = max(1.0, *shares) * 1.06
    ticks = tuple((tick / 4, f"{25 * tick} %") for tick in range(int(high * 4) + 1))
    return Axis(label, 0.0, high, ticks, "linear")


def kept_by_block(plan: ModelPlan) -> Chart | None:
    """Return what is kept of every layer by its block, a line for each kind of layer; None without blocks."""
    kinds: dict[str, list[tuple[int, LayerChoice]]] = {}
    for one in plan.layers:
        if (found := BLOCK.match(one.layer)) is not None:
            kinds.setdefault(found[2], []).append((int(found[1]), one))
    if not kinds:
        return None
    last = max(block for ones in kinds.values() for block, _ in ones)
    return Chart(
        key="kept-block",
        title="Kept of each layer",
        note="Numbers kept / numbers of the dense weight, by block; 100 % is a layer that stays dense.",
        columns=("Layer", "Form", "Kept", "Damage, nats"),
        x=_block_axis(last),
        y=_share_axis("kept", [1.0]),
        series=tuple(
            Series(kind, f"k{place}", ordered_style(place, len(kinds)), place, _kept_points(ones))
            for place, (kind, ones) in enumerate(kinds.items())
        ),
        width=960.0,
        height=360.0,
    )


def _block_axis(last: int) -> Axis:
    step = -(-(last + 1) // MOST_TICKS)
    ticks = tuple((float(block), str(block)) for block in range(0, last + 1, step))
    return Axis("block", -0.5, last + 0.5, ticks, "linear")


def _kept_points(ones: Sequence[tuple[int, LayerChoice]]) -> tuple[Point, ...]:
    found = []
    for block, one in sorted(ones, key=lambda pair: pair[0]):
        kept = one.chosen.numbers / one.dense.numbers
        found.append(Point(block, kept, (one.layer, str(one.chosen), share_text(kept), f"{one.chosen.damage:.2g}")))
    return tuple(found)
