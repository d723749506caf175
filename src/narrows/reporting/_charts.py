"""The charts of a report, one group for every mode and cache state.

At each length and rank the fastest measured implementation stands for the thin chain; its name is in
the hover text. Every speedup carries its errors there too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._stats import TIE
from narrows.planning import pick
from narrows.reporting._axes import (
    categories_axis,
    error_axis,
    memory_axis,
    ratio_axis,
    sizes_axis,
    time_axis,
)
from narrows.reporting._plot import NUM_NAMED, Chart, Point, Series, ordered_style
from narrows.reporting._sections_speed import ERROR_BUDGET
from narrows.reporting._text import bytes_text, error_text, interval_text, time_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from narrows._stats import Comparison
    from narrows.planning import Candidate
    from narrows.reporting._part import Part
    from narrows.reporting._plot import Axis

LABEL_SPACE = 1.25  # of the range above a point, for the two lines of its label
ERROR = "Error (upper 95 %)"
SPEEDUP = "Speedup [99 %]"
PUBLISHED_FEATURES = 4096
PUBLISHED = {64: 1.16, 128: 1.27, 256: 1.99, 512: 2.97, 1024: 6.07, 2048: 7.11, 4096: 9.46}
TIE_ZONE = (1 / (1 + TIE), 1 + TIE)


def charts(part: Part) -> tuple[Chart, ...]:
    """Return the charts of one part, in reading order; memory only where it is known."""
    drawn = [speedup_by_rank(part), best_by_length(part), *speedup_by_error(part), time_and_limit(part)]
    return (*drawn, memory_by_rank(part)) if any(c.row.memory_bytes for c in part.best.values()) else tuple(drawn)


def speedup_by_rank(part: Part) -> Chart:
    """Return speedup against rank, one line for a length."""
    series = []
    for index, tokens in enumerate(part.tokens):
        points = tuple(_speedup_point(part, tokens, rank, x=rank) for rank in _ranks(part, tokens))
        series.append(
            Series(_tokens(tokens), f"t{tokens}", length_style(part, tokens), index, points, end_label=str(tokens))
        )
    return Chart(
        key="speedup-rank",
        title="Speedup against rank",
        note="One line for each number of tokens; its band is the 99 % interval. "
        f"Above the grey zone (a tie with dense, within {TIE:.0%}) the thin chain is faster.",
        columns=("Tokens", "Rank", "Implementation", SPEEDUP, *_error_columns(part), "Doubts"),
        x=sizes_axis("rank", part.ranks, room=0.6),
        y=_ratios(part),
        series=tuple(series),
        zone=TIE_ZONE,
    )


def best_by_length(part: Part) -> Chart:
    """Return the best speedup against tokens: at any error, within the budget for each weight, as published."""
    series = [_any_error(part)]
    series += [_within(part, weight, index) for index, weight in enumerate(part.weights)]
    if _is_published_shape(part):
        series.append(_published(part))
    return Chart(
        key="best-length",
        title="Best speedup by length",
        note=f"At any error (the error of {part.weights[0]} is written above), and with an error of at most "
        f"{ERROR_BUDGET:.0%}, where dense (1x) wins when no rank is good enough and faster.",
        columns=("Series", "Tokens", "Choice", SPEEDUP, ERROR),
        x=sizes_axis("tokens", part.tokens),
        y=ratio_axis("speedup", [p.y * (LABEL_SPACE if p.label else 1) for one in series for p in one.points]),
        series=tuple(series),
        zone=TIE_ZONE,
    )


def speedup_by_error(part: Part) -> tuple[Chart, ...]:
    """Return speedup against error, one panel for a weight on shared axes."""
    x = error_axis("output error, upper 95 % end", _errors(part))
    panels = []
    for weight in part.weights:
        series = tuple(
            Series(_tokens(tokens), f"t{tokens}", length_style(part, tokens), index, points)
            for index, tokens in enumerate(part.tokens)
            if (points := _pareto(part, weight, tokens))
        )
        panels.append(
            Chart(
                key="speedup-error",
                title=weight,
                note="",
                columns=("Tokens", "Rank", "Implementation", SPEEDUP, ERROR, "Choice"),
                x=x,
                y=_ratios(part),
                series=series,
                zone=TIE_ZONE,
                width=360,
                height=320,
            )
        )
    return tuple(panels)


def time_and_limit(part: Part) -> Chart:
    """Return time and limit for dense and every rank."""
    series = []
    for index, tokens in enumerate(part.tokens):
        points = tuple(
            Point(x, c.time_ns, _time_cells(tokens, c), second=c.row.limit_ns) for x, c in _columns(part, tokens, index)
        )
        level = _dense(part, tokens).time_ns
        series.append(Series(_tokens(tokens), f"t{tokens}", length_style(part, tokens), index, points, False, level))
    values = [v for one in series for p in one.points for v in (p.y, p.second or p.y)]
    return Chart(
        key="time-limit",
        title="Time against the limit",
        note="Marker: median time of one call. Bar at the end of the stem: the least time this machine allows; "
        "the shorter the stem, the closer to the limit. Faint lines: dense.",
        columns=("Tokens", "Rank", "Implementation", "Time", "Limit", "Share of the limit"),
        x=categories_axis("rank", ("dense", *map(str, part.ranks))),
        y=time_axis("time", values),
        series=tuple(series),
    )


def memory_by_rank(part: Part) -> Chart:
    """Return peak memory as measured and by formula, for dense and every rank."""
    series = []
    for index, tokens in enumerate(part.tokens):
        points = tuple(
            Point(
                x,
                c.row.peak_memory_bytes or c.row.memory_bytes,
                _memory_cells(tokens, c),
                second=c.row.memory_bytes,
                is_hollow=c.row.peak_memory_bytes is None,
            )
            for x, c in _columns(part, tokens, index)
        )
        dense = _dense(part, tokens).row
        level = dense.peak_memory_bytes or dense.memory_bytes
        series.append(Series(_tokens(tokens), f"t{tokens}", length_style(part, tokens), index, points, False, level))
    values = [v for one in series for p in one.points for v in (p.y, p.second or p.y)]
    return Chart(
        key="memory-rank",
        title="Memory by rank",
        note="Marker: measured peak (an outline where it was not measured). Bar at the end of the stem: by formula. "
        "Faint lines: dense.",
        columns=("Tokens", "Rank", "Implementation", "Measured peak", "By formula"),
        x=categories_axis("rank", ("dense", *map(str, part.ranks))),
        y=memory_axis("memory", values),
        series=tuple(series),
    )


def length_style(part: Part, tokens: int) -> str:
    """Return the colour class of a length."""
    return ordered_style(part.tokens.index(tokens), len(part.tokens))


def fastest_within(part: Part, tokens: int, weight: str, error: float) -> Candidate | None:
    """Return what `choose` takes at a length: faster than dense beyond doubt, largest rank among ties; or None."""
    point = next(point for point in part.points if point.tokens == tokens)
    fit = [
        candidate
        for candidate in point.candidates
        if (known := part.error(weight, tokens, candidate.rank)) is not None
        and known <= error
        and candidate.measured.speedup.verdict == "faster"
    ]
    return pick(fit)[0] if fit else None


def _is_published_shape(part: Part) -> bool:
    asked = part.report.experiment
    sizes = {asked.in_features, asked.out_features}
    return asked.kind == "bilinear" and sizes == {PUBLISHED_FEATURES} and asked.heads == 1


def _dense(part: Part, tokens: int) -> Comparison:
    return next(point.dense for point in part.points if point.tokens == tokens)


def _tokens(tokens: int) -> str:
    return f"{tokens} tokens"


def _ranks(part: Part, tokens: int) -> list[int]:
    return [rank for rank in part.ranks if (tokens, rank) in part.best]


def _ratios(part: Part) -> Axis:
    ratios = [c.speedup for c in part.best.values()]
    return ratio_axis("speedup", [end for r in ratios for end in (r.value, r.low, r.high)])


def _errors(part: Part) -> Iterable[float]:
    return (e.upper95 for e in part.report.errors if e.tokens in part.tokens and e.rank in part.ranks)


def _error_columns(part: Part) -> tuple[str, ...]:
    return tuple(f"Error, {weight}" for weight in part.weights)


def _shown_error(part: Part, weight: str, tokens: int, rank: int) -> str:
    error = part.error(weight, tokens, rank)
    return "not known" if error is None else error_text(error)


def _speedup_point(part: Part, tokens: int, rank: int, *, x: float) -> Point:
    c = part.best[tokens, rank]
    errors = (_shown_error(part, weight, tokens, rank) for weight in part.weights)
    ratio = c.speedup
    cells = (str(tokens), str(rank), c.row.variant, interval_text(ratio))
    return Point(x, ratio.value, (*cells, *errors, "; ".join(c.doubts)), ratio.low, ratio.high)


def _any_error(part: Part) -> Series:
    name = "fastest rank, any error"
    points = []
    for point in part.points:
        taken, _ = part.fastest(point)
        ratio = taken.measured.speedup
        error = _shown_error(part, part.weights[0], point.tokens, taken.rank)
        cells = (name, str(point.tokens), f"rank {taken.rank}", interval_text(ratio), error)
        label = (f"r{taken.rank}", _short(error))
        points.append(Point(point.tokens, ratio.value, cells, ratio.low, ratio.high, label=label))
    return Series(name, "any", "ink", 0, tuple(points))


def _short(error: str) -> str:
    """Return "98%" for "98.4%"; small errors keep their figures."""
    whole, _, rest = error.partition(".")
    return f"{whole}%" if len(whole) > 1 and rest.endswith("%") else error


def _within(part: Part, weight: str, index: int) -> Series:
    name = f"{weight}, error at most {ERROR_BUDGET:.0%}"
    points = []
    for tokens in part.tokens:
        taken = fastest_within(part, tokens, weight, ERROR_BUDGET)
        if taken is None:
            points.append(Point(tokens, 1.0, (name, str(tokens), "dense", "1x", "none")))
            continue
        ratio = taken.measured.speedup
        error = _shown_error(part, weight, tokens, taken.rank)
        cells = (name, str(tokens), f"rank {taken.rank}", interval_text(ratio), error)
        points.append(Point(tokens, ratio.value, cells, ratio.low, ratio.high))
    return Series(name, f"w{index}", f"n{index % NUM_NAMED}", index + 1, tuple(points))


def _published(part: Part) -> Series:
    name = "published figures (unknown GPU, error not given)"
    points = tuple(
        Point(t, PUBLISHED[t], (name, str(t), "any error", f"{PUBLISHED[t]}x", "not published"))
        for t in part.tokens
        if t in PUBLISHED
    )
    return Series(name, "published", "published", 5, points)


def _pareto(part: Part, weight: str, tokens: int) -> tuple[Point, ...]:
    """Return points by rank; an outline where another rank is at least as fast and as exact."""
    known = [
        (error, part.best[tokens, rank].speedup, rank)
        for rank in _ranks(part, tokens)
        if (error := part.error(weight, tokens, rank)) is not None
    ]
    points = []
    for error, ratio, rank in known:
        beaten = ratio.value < 1 or any(e <= error and s.value > ratio.value for e, s, _ in known)
        variant = part.best[tokens, rank].row.variant
        cells = (str(tokens), str(rank), variant, interval_text(ratio), error_text(error))
        choice = "another rank or dense is faster and as exact" if beaten else "best at this error"
        points.append(Point(error, ratio.value, (*cells, choice), ratio.low, ratio.high, is_hollow=beaten))
    return tuple(points)


def _columns(part: Part, tokens: int, index: int) -> list[tuple[float, Comparison]]:
    """Return x and comparison for dense and every rank; lengths stand side by side within a column."""
    count = len(part.tokens)
    aside = 0.7 * ((index + 0.5) / count - 0.5)
    found = [(aside, _dense(part, tokens))]
    found += [(part.ranks.index(rank) + 1 + aside, part.best[tokens, rank]) for rank in _ranks(part, tokens)]
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
