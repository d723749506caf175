"""The charts of a report, one group for every mode and cache state.

At each length and rank the fastest measured implementation stands for the thin chain; its name is in
the hover text. Every speedup carries its errors there too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from narrows._stats import TIE, compare_rows
from narrows._values import CACHES, MODES
from narrows.reporting._axes import (
    categories_axis,
    error_axis,
    memory_axis,
    ratio_axis,
    sizes_axis,
    time_axis,
)
from narrows.reporting._plot import NUM_NAMED, Chart, Point, Series, ordered_style
from narrows.reporting._text import bytes_text, error_text, interval_text, time_text

if TYPE_CHECKING:
    from narrows._stats import Comparison
    from narrows._values import Cache, Mode, Report
    from narrows.reporting._plot import Axis

LABEL_SPACE = 1.25  # of the range above a point, for the two lines of its label
BUDGET = 0.01  # the error of "within 1 %" in the chart of best speedups
ERROR = "Error (upper 95 %)"
SPEEDUP = "Speedup [99 % interval]"
PUBLISHED_FEATURES = 4096
PUBLISHED = {64: 1.16, 128: 1.27, 256: 1.99, 512: 2.97, 1024: 6.07, 2048: 7.11, 4096: 9.46}
TIE_ZONE = (1 / (1 + TIE), 1 + TIE)


@dataclass(frozen=True, slots=True)
class Group:
    """Charts of one mode and cache state.

    Attributes:
        tokens, ranks: measured ones, ascending.
        best: (tokens, rank) -> the fastest thin comparison.
        dense: tokens -> the comparison of the faster dense association with itself.
        errors: (weight, tokens, rank) -> upper 95 % end of the output error.
        weights: names, the timed one first.

    """

    mode: Mode
    cache: Cache
    tokens: tuple[int, ...]
    ranks: tuple[int, ...]
    best: dict[tuple[int, int], Comparison]
    dense: dict[int, Comparison]
    errors: dict[tuple[str, int, int], float]
    weights: tuple[str, ...]
    is_published_shape: bool

    @property
    def name(self) -> str:
        """How headings call it."""
        return f"{self.mode.capitalize()}, {self.cache}"

    def style(self, tokens: int) -> str:
        """Return the colour class of a length."""
        return ordered_style(self.tokens.index(tokens), len(self.tokens))


def groups(report: Report) -> tuple[Group, ...]:
    """Return a group for every mode and cache state that has a thin row beside a dense one."""
    found = []
    errors = {(e.weight, e.tokens, e.rank): e.upper95 for e in report.errors}
    everything = compare_rows(report)
    for mode, cache in product(MODES, CACHES):
        chosen = [c for c in everything if (c.row.mode, c.row.cache) == (mode, cache)]
        best: dict[tuple[int, int], Comparison] = {}
        for one in sorted(chosen, key=lambda c: c.time_ns, reverse=True):
            if one.row.rank is not None:
                best[one.row.tokens, one.row.rank] = one
        if best:
            found.append(
                Group(
                    mode=mode,
                    cache=cache,
                    tokens=tuple(sorted({t for t, _ in best})),
                    ranks=tuple(sorted({r for _, r in best})),
                    best=best,
                    dense={c.row.tokens: c for c in chosen if c.row is c.dense},
                    errors=errors,
                    weights=tuple(weight.name for weight in report.experiment.weights),
                    is_published_shape=_is_published_shape(report),
                )
            )
    return tuple(found)


def charts(group: Group) -> tuple[Chart, ...]:
    """Return the charts of one group, in reading order; memory only where it is known."""
    drawn = [speedup_by_rank(group), best_by_length(group), *speedup_by_error(group), time_and_limit(group)]
    return (*drawn, memory_by_rank(group)) if any(c.row.memory_bytes for c in group.best.values()) else tuple(drawn)


def speedup_by_rank(group: Group) -> Chart:
    """Return speedup against rank, one line for a length."""
    series = []
    for index, tokens in enumerate(group.tokens):
        points = tuple(_speedup_point(group, tokens, rank, x=rank) for rank in _ranks(group, tokens))
        series.append(Series(_tokens(tokens), f"t{tokens}", group.style(tokens), index, points, end_label=str(tokens)))
    return Chart(
        key="speedup-rank",
        title="Speedup against rank",
        note="One line for each number of tokens; its band is the 99 % interval. "
        f"Above the grey zone (a tie with dense, within {TIE:.0%}) the thin chain is faster.",
        columns=("Tokens", "Rank", "Implementation", SPEEDUP, *_error_columns(group), "Doubts"),
        x=sizes_axis("rank", group.ranks, room=0.6),
        y=_ratios(group),
        series=tuple(series),
        zone=TIE_ZONE,
    )


def best_by_length(group: Group) -> Chart:
    """Return the best speedup against tokens: at any error, within 1 % for each weight, as published."""
    series = [_any_error(group)]
    series += [_within(group, weight, index) for index, weight in enumerate(group.weights)]
    if group.is_published_shape:
        series.append(_published(group))
    return Chart(
        key="best-length",
        title="Best speedup by length",
        note=f"At any error (the error of {group.weights[0]} is written above), and with an error of at most "
        f"{BUDGET:.0%}, where dense (1x) wins when no rank is good enough and faster.",
        columns=("Series", "Tokens", "Choice", SPEEDUP, ERROR),
        x=sizes_axis("tokens", group.tokens),
        y=ratio_axis("speedup", [p.y * (LABEL_SPACE if p.label else 1) for one in series for p in one.points]),
        series=tuple(series),
        zone=TIE_ZONE,
    )


def speedup_by_error(group: Group) -> tuple[Chart, ...]:
    """Return speedup against error, one panel for a weight on shared axes."""
    x = error_axis("output error, upper 95 % end", group.errors.values())
    panels = []
    for weight in group.weights:
        series = tuple(
            Series(_tokens(tokens), f"t{tokens}", group.style(tokens), index, points)
            for index, tokens in enumerate(group.tokens)
            if (points := _pareto(group, weight, tokens))
        )
        panels.append(
            Chart(
                key="speedup-error",
                title=weight,
                note="",
                columns=("Tokens", "Rank", "Implementation", SPEEDUP, ERROR, "Choice"),
                x=x,
                y=_ratios(group),
                series=series,
                zone=TIE_ZONE,
                width=360,
                height=320,
            )
        )
    return tuple(panels)


def time_and_limit(group: Group) -> Chart:
    """Return time and limit for dense and every rank."""
    series = []
    for index, tokens in enumerate(group.tokens):
        points = tuple(
            Point(x, c.time_ns, _time_cells(tokens, c), second=c.row.limit_ns)
            for x, c in _columns(group, tokens, index)
        )
        level = group.dense[tokens].time_ns
        series.append(Series(_tokens(tokens), f"t{tokens}", group.style(tokens), index, points, False, level))
    values = [v for one in series for p in one.points for v in (p.y, p.second or p.y)]
    return Chart(
        key="time-limit",
        title="Time against the limit",
        note="Marker: median time of one call. Bar at the end of the stem: the least time this machine allows; "
        "the shorter the stem, the closer to the limit. Faint lines: dense.",
        columns=("Tokens", "Rank", "Implementation", "Time", "Limit", "Share of the limit"),
        x=categories_axis("rank", ("dense", *map(str, group.ranks))),
        y=time_axis("time", values),
        series=tuple(series),
    )


def memory_by_rank(group: Group) -> Chart:
    """Return peak memory as measured and by formula, for dense and every rank."""
    series = []
    for index, tokens in enumerate(group.tokens):
        points = tuple(
            Point(
                x,
                c.row.peak_memory_bytes or c.row.memory_bytes,
                _memory_cells(tokens, c),
                second=c.row.memory_bytes,
                is_hollow=c.row.peak_memory_bytes is None,
            )
            for x, c in _columns(group, tokens, index)
        )
        dense = group.dense[tokens].row
        level = dense.peak_memory_bytes or dense.memory_bytes
        series.append(Series(_tokens(tokens), f"t{tokens}", group.style(tokens), index, points, False, level))
    values = [v for one in series for p in one.points for v in (p.y, p.second or p.y)]
    return Chart(
        key="memory-rank",
        title="Memory by rank",
        note="Marker: measured peak (an outline where it was not measured). Bar at the end of the stem: by formula. "
        "Faint lines: dense.",
        columns=("Tokens", "Rank", "Implementation", "Measured peak", "By formula"),
        x=categories_axis("rank", ("dense", *map(str, group.ranks))),
        y=memory_axis("memory", values),
        series=tuple(series),
    )


def _is_published_shape(report: Report) -> bool:
    asked = report.experiment
    sizes = {asked.in_features, asked.out_features}
    return asked.kind == "bilinear" and sizes == {PUBLISHED_FEATURES} and asked.heads == 1


def _tokens(tokens: int) -> str:
    return f"{tokens} tokens"


def _ranks(group: Group, tokens: int) -> list[int]:
    return [rank for rank in group.ranks if (tokens, rank) in group.best]


def _ratios(group: Group) -> Axis:
    ratios = [c.speedup for c in group.best.values()]
    return ratio_axis("speedup", [end for r in ratios for end in (r.value, r.low, r.high)])


def _error_columns(group: Group) -> tuple[str, ...]:
    return tuple(f"Error, {weight}" for weight in group.weights)


def _shown_error(group: Group, weight: str, tokens: int, rank: int) -> str:
    error = group.errors.get((weight, tokens, rank))
    return "not known" if error is None else error_text(error)


def _speedup_point(group: Group, tokens: int, rank: int, *, x: float) -> Point:
    c = group.best[tokens, rank]
    errors = (_shown_error(group, weight, tokens, rank) for weight in group.weights)
    ratio = c.speedup
    cells = (str(tokens), str(rank), c.row.variant, interval_text(ratio))
    return Point(x, ratio.value, (*cells, *errors, "; ".join(c.doubts)), ratio.low, ratio.high)


def _any_error(group: Group) -> Series:
    name = "fastest rank, any error"
    points = []
    for tokens in group.tokens:
        rank = max(_ranks(group, tokens), key=lambda r: group.best[tokens, r].speedup.value)
        ratio = group.best[tokens, rank].speedup
        error = _shown_error(group, group.weights[0], tokens, rank)
        cells = (name, str(tokens), f"rank {rank}", interval_text(ratio), error)
        points.append(Point(tokens, ratio.value, cells, ratio.low, ratio.high, label=(f"r{rank}", _short(error))))
    return Series(name, "any", "ink", 0, tuple(points))


def _short(error: str) -> str:
    """Return "98%" for "98.4%"; small errors keep their figures."""
    whole, _, rest = error.partition(".")
    return f"{whole}%" if len(whole) > 1 and rest.endswith("%") else error


def _within(group: Group, weight: str, index: int) -> Series:
    name = f"{weight}, error at most {BUDGET:.0%}"
    points = []
    for tokens in group.tokens:
        fit = [r for r in _ranks(group, tokens) if group.errors.get((weight, tokens, r), 1.0) <= BUDGET]
        rank = max(fit, key=lambda r: group.best[tokens, r].speedup.value, default=None)
        ratio = None if rank is None else group.best[tokens, rank].speedup
        if rank is None or ratio is None or ratio.verdict != "faster":
            points.append(Point(tokens, 1.0, (name, str(tokens), "dense", "1x", "none")))
            continue
        error = _shown_error(group, weight, tokens, rank)
        cells = (name, str(tokens), f"rank {rank}", interval_text(ratio), error)
        points.append(Point(tokens, ratio.value, cells, ratio.low, ratio.high))
    return Series(name, f"w{index}", f"n{index % NUM_NAMED}", index + 1, tuple(points))


def _published(group: Group) -> Series:
    name = "published figures (unknown GPU, error not given)"
    points = tuple(
        Point(t, PUBLISHED[t], (name, str(t), "any error", f"{PUBLISHED[t]}x", "not published"))
        for t in group.tokens
        if t in PUBLISHED
    )
    return Series(name, "published", "published", 5, points)


def _pareto(group: Group, weight: str, tokens: int) -> tuple[Point, ...]:
    """Return points by rank; an outline where another rank is at least as fast and as exact."""
    known = [
        (group.errors[weight, tokens, rank], group.best[tokens, rank].speedup, rank)
        for rank in _ranks(group, tokens)
        if (weight, tokens, rank) in group.errors
    ]
    points = []
    for error, ratio, rank in known:
        beaten = ratio.value < 1 or any(e <= error and s.value > ratio.value for e, s, _ in known)
        variant = group.best[tokens, rank].row.variant
        cells = (str(tokens), str(rank), variant, interval_text(ratio), error_text(error))
        choice = "another rank or dense is faster and as exact" if beaten else "best at this error"
        points.append(Point(error, ratio.value, (*cells, choice), ratio.low, ratio.high, is_hollow=beaten))
    return tuple(points)


def _columns(group: Group, tokens: int, index: int) -> list[tuple[float, Comparison]]:
    """Return x and comparison for dense and every rank; lengths stand side by side within a column."""
    count = len(group.tokens)
    aside = 0.7 * ((index + 0.5) / count - 0.5)
    found = [(aside, group.dense[tokens])]
    found += [(group.ranks.index(rank) + 1 + aside, group.best[tokens, rank]) for rank in _ranks(group, tokens)]
    return found


def _rank(c: Comparison) -> str:
    return "dense" if c.row.rank is None else str(c.row.rank)


def _time_cells(tokens: int, c: Comparison) -> tuple[str, ...]:
    limit = "not known" if c.row.limit_ns is None else time_text(c.row.limit_ns)
    share = "not known" if c.share is None else f"{c.share:.0%}"
    return str(tokens), _rank(c), c.row.variant, time_text(c.time_ns), limit, share


def _memory_cells(tokens: int, c: Comparison) -> tuple[str, ...]:
    peak = c.row.peak_memory_bytes
    measured = "not measured" if peak is None else bytes_text(peak)
    return str(tokens), _rank(c), c.row.variant, measured, bytes_text(c.row.memory_bytes)
