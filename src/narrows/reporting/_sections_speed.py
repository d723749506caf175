"""The document's first sections: key findings, optimal configuration, short, medium and long sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from narrows._stats import power_law
from narrows.reporting import _cells as cells
from narrows.reporting._part import parts
from narrows.reporting._records import Section
from narrows.reporting._statements import statements
from narrows.reporting._table import Table
from narrows.reporting._tables import best_table, budget_choices, budget_table, speedup_table
from narrows.reporting._tables_cost import weights_table
from narrows.reporting._tables_statements import verdicts_text
from narrows.reporting._text import bytes_text, error_text, interval_text, listed, percent_text

if TYPE_CHECKING:
    from narrows._values import Choice, Report
    from narrows.planning import Point
    from narrows.reporting._part import Part

ERROR_BUDGET = 0.05  # of the table within a budget, where none is asked for
BANDS = (("Short sequences (up to 256)", 1, 256), ("Medium sequences (257 to 2047)", 257, 2047))
LONG = ("Long sequences (2048 and more)", 2048, 1 << 62)


def findings(part: Part, *, error: float = ERROR_BUDGET) -> tuple[str, ...]:
    """Return the key findings of one mode and cache state, one sentence each."""
    return (
        _largest(part),
        _where_it_gains(part),
        *(within_budget(part, weight, error) for weight in part.weights),
        *_growth(part),
        _slow_ranks(part),
    )


def gains(part: Part) -> tuple[Point, ...]:
    """Return the lengths at which the fastest rank beats dense beyond doubt."""
    return tuple(p for p in part.points if part.fastest(p)[0].measured.speedup.verdict == "faster")


def paid(part: Part, tokens: int, rank: int) -> str:
    """Return the error of every weight at a point."""
    errors = ((name, part.error(name, tokens, rank)) for name in part.weights)
    return ", ".join(f"{error_text(error)} ({name})" for name, error in errors if error is not None)


def sentence(part: Part, point: Point) -> str:
    """Return a length's best speedup with what pays for it."""
    taken, _ = part.fastest(point)
    speedup = interval_text(taken.measured.speedup)
    return f"T={point.tokens}: {speedup} with {taken}, at an error of {paid(part, point.tokens, taken.rank)}"


def _largest(part: Part) -> str:
    best = max(part.points, key=lambda point: part.fastest(point)[0].measured.speedup.value)
    if part.fastest(best)[0].measured.speedup.verdict != "faster":
        text = "No gain here: no rank is faster than dense beyond doubt at any length; the best is"
        return f"{text} {sentence(part, best)}."
    return f"The largest speedup is {sentence(part, best)}."


def _where_it_gains(part: Part) -> str:
    faster = [point.tokens for point in gains(part)]
    others = [tokens for tokens in part.tokens if tokens not in faster]
    text = f"Some rank is faster than dense beyond doubt, at any error, at {len(faster)} of {len(part.tokens)} lengths"
    return f"{text}; no gain at T={listed(others)}." if others else f"{text}."


def within_budget(part: Part, weight: str, error: float) -> str:
    """Return in one sentence where a weight gains within an error budget."""
    uses = gains_within(part, weight, error)
    if not uses:
        return f"Within an error of {percent_text(error)} no rank of {weight} is faster than dense: stay dense."
    best = max(uses, key=lambda choice: choice.speedup)
    return (
        f"Within an error of {percent_text(error)} {weight} gains at {len(uses)} of {len(part.tokens)} lengths: "
        f"at most {best.speedup:.2f}x [{best.speedup_low:.2f}, {best.speedup_high:.2f}] at T={best.tokens_from} with "
        f"rank {best.rank} (error {error_text(best.error)})."
    )


def gains_within(part: Part, weight: str, error: float) -> tuple[Choice, ...]:
    """Return the measured lengths at which a plan within an error budget uses a rank."""
    return tuple(choice for choice in budget_choices(part, weight, error) if choice.rank is not None)


def _growth(part: Part) -> tuple[str, ...]:
    slope = power_law(part.tokens, [part.fastest(p)[0].measured.speedup.value for p in part.points])
    if slope is None:
        return ()
    law = f"exponent {slope.value:.2f} [{slope.low:.2f}, {slope.high:.2f}], 1 would be linear"
    if slope.low > 1:
        word = "grows with length, faster than linearly"
    elif slope.low > 0:
        word = "grows with length, " + ("perhaps linearly" if slope.high > 1 else "slower than linearly")
    elif slope.high < 0:
        word = "falls with length"
    else:
        word = "shows no trend with length beyond doubt"
    return (f"The largest speedup (at any error) {word}: {law}.",)


def _slow_ranks(part: Part) -> str:
    slow = [
        rank
        for rank in part.ranks
        if all(part.best[t, rank].speedup.verdict == "slower" for t in part.tokens if (t, rank) in part.best)
    ]
    if not slow:
        return "No measured rank is slower than dense at every length."
    return f"Rank {listed(slow)}: slower than dense at every length."


def findings_table(report: Report, *, error: float = ERROR_BUDGET) -> Table:
    """Return the key findings and the verdicts' count, one sentence a row."""
    found = parts(report)
    texts = [_named(found, part, text) for part in found for text in findings(part, error=error)]
    texts.append(verdicts_text(statements(report)))
    return Table(
        "findings", "Key findings", (cells.left("finding", "Finding"),), tuple((cells.word(t),) for t in texts)
    )


def findings_section(report: Report, found: tuple[Part, ...]) -> Section:
    """Return the key findings of every mode and cache state."""
    points = tuple(_named(found, part, text) for part in found for text in findings(part))
    return Section("Key findings", (), points, (weights_table(report),))


def _named(found: tuple[Part, ...], part: Part, text: str) -> str:
    return f"({part.name}) {text}" if len(found) > 1 else text


def optimal_section(report: Report, found: tuple[Part, ...]) -> Section:
    """Return the best rank for each length: at any error, and within the budget."""
    text = (
        "Among ranks whose times cannot be told apart the largest is shown: its accuracy costs no time. Within a "
        "budget only a rank that is faster than dense beyond doubt is used; dense wins ties."
    )
    tables = (best_table(report), budget_table(report, ERROR_BUDGET), *(speedup_table(part) for part in found))
    return Section("Optimal configuration", (text,), (), tables)


def band_sections(found: tuple[Part, ...]) -> tuple[Section, ...]:
    """Return the sections on short, medium and long sequences: the lengths that were measured."""
    return tuple(_band(found, *band) for band in (*BANDS, LONG))


def _band(found: tuple[Part, ...], title: str, low: int, high: int) -> Section:
    points: list[str] = []
    tables = []
    for part in found:
        inside = tuple(point for point in part.points if low <= point.tokens <= high)
        if inside:
            points += [_named(found, part, text) for text in _band_sentences(part, inside)]
            tables.append(speedup_table(part, tuple(point.tokens for point in inside)))
    paragraphs = () if points else ("No length of this band was measured.",)
    return Section(title, paragraphs, tuple(points), tuple(tables))


def _band_sentences(part: Part, inside: tuple[Point, ...]) -> tuple[str, ...]:
    best = tuple(f"{sentence(part, point)}." for point in inside)
    none = [p.tokens for p in inside if p not in gains(part)]
    no_gain = (f"No gain here at T={listed(none)}: no rank is faster than dense beyond doubt.",) if none else ()
    return (*best, *no_gain, *(_sensitivity(part, point) for point in inside))


def _sensitivity(part: Part, point: Point) -> str:
    times = [c.time_ns for (t, _), c in part.best.items() if t == point.tokens]
    spread = float(np.std(np.log2(times)))
    return (
        f"T={point.tokens}: times of its {len(times)} ranks spread over a factor of {max(times) / min(times):.2f} "
        f"(standard deviation of log2 time {spread:.2f})."
    )


def describe(report: Report) -> tuple[str, ...]:
    """Return what was measured, where and when."""
    experiment, machine = report.experiment, report.machine
    chain = "S = (X W) X^T against S = (X A)(X B)^T" if experiment.kind == "bilinear" else "y = x W^T against (x A) B"
    heads = f", {experiment.heads} heads" if experiment.heads > 1 else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine.software.items())
    return (
        (
            f"{chain}: W is {experiment.out_features}x{experiment.in_features}{heads}, {experiment.dtype}; lengths "
            f"{listed(experiment.tokens)}; middle dimensions {listed(experiment.ranks)}."
        ),
        (
            f"Measured on {machine.name} ({machine.device}, {machine.cores} cores, {machine.threads} threads, "
            f"{bytes_text(machine.memory_bytes)}; {versions}), {report.created}, with narrows {report.version}."
        ),
        (
            "Speedups are dense time / thin time, medians of ratios taken side by side, with 99 % intervals; the error "
            "that pays for a speedup stands beside it. Weights share their times, which depend on shapes only."
        ),
    )
