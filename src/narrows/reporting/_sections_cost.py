"""The document's later sections: complexity, practical implications, memory, recommendations, conclusion."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from narrows._stats import power_law
from narrows.reporting._records import Section
from narrows.reporting._sections_speed import ERROR_BUDGET, gains, gains_within, sentence, within_budget
from narrows.reporting._statements import statements
from narrows.reporting._tables import share_table, time_table
from narrows.reporting._tables_complexity import complexity_table
from narrows.reporting._tables_cost import doubts_table, error_table, memory_table, preparation_table
from narrows.reporting._tables_statements import statements_table, verdicts_text
from narrows.reporting._text import count_text, listed, percent_text, time_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows._values import Report
    from narrows.reporting._part import Part
    from narrows.reporting._statements import Judged

BUDGETS = (0.01, ERROR_BUDGET, 0.2)


def complexity_section(found: tuple[Part, ...]) -> Section:
    """Return what the formulas promise, what was measured, and how far both are from the limit."""
    points = tuple(text for part in found for text in _laws(part))
    tables = tuple(table for part in found for table in (complexity_table(part), time_table(part), share_table(part)))
    paragraph = (
        "By formula the thin chain of the bilinear form takes 2 R (T D + U E + T U) FLOPs, dense 2 (T D E + T E U); "
        "of the linear form 2 T R (D + E) and 2 T D E."
    )
    return Section("Computational complexity", (paragraph,), points, tables)


def _laws(part: Part) -> tuple[str, ...]:
    dense = [point.dense for point in part.points]
    thin = list(part.best.values())
    found = {
        "dense": power_law([c.row.flops for c in dense], [c.time_ns for c in dense]),
        "thin": power_law([c.row.flops for c in thin], [c.time_ns for c in thin]),
    }
    laws = tuple(
        f"Time of the {name} chain grows with its FLOPs to the power {s.value:.2f} [{s.low:.2f}, {s.high:.2f}] "
        f"({part.name}); 1 is what the formula says."
        for name, s in found.items()
        if s is not None
    )
    names = sorted({point.dense.row.variant for point in part.points})
    used = "; ".join(
        f"{name} at T={listed([p.tokens for p in part.points if p.dense.row.variant == name])}" for name in names
    )
    return (*laws, f"The faster association of the dense chain ({part.name}): {used}.")


def practical_section(found: tuple[Part, ...]) -> Section:
    """Return whether one rank serves every length, and when the preparation pays."""
    points = tuple(text for part in found for text in (_ranks_in_use(part), *_preparation(part)))
    return Section("Practical implications", (), points, tuple(preparation_table(part) for part in found))


def _ranks_in_use(part: Part) -> str:
    ranks = sorted({part.fastest(point)[0].rank for point in gains(part)})
    if not ranks:
        return f"No gain here ({part.name}): dense serves every measured length."
    if len(ranks) == 1:
        return f"One rank, {ranks[0]}, is the best at every length that gains ({part.name}, at any error)."
    return f"The best rank changes with the length: {listed(ranks)} ({part.name}, at any error)."


def _preparation(part: Part) -> tuple[str, ...]:
    points = gains(part)
    if not points:
        return (f"The preparation never pays ({part.name}): there is no time to save.",)
    saved = {p.tokens: p.dense.time_ns - part.fastest(p)[0].measured.time_ns for p in points}
    best = max(saved, key=lambda tokens: saved[tokens])
    return tuple(
        f"Factorising {weight.name} took {time_text(weight.seconds * 1e9)}; at T={best}, at the best rank, that pays "
        f"after {count_text(math.ceil(weight.seconds * 1e9 / saved[best]))} calls ({part.name})."
        for weight in part.report.weights
        if saved[best] > 0
    )


def memory_section(found: tuple[Part, ...]) -> Section:
    """Return memory, measured and by formula."""
    points = tuple(_memory_sentence(part) for part in found)
    return Section("Memory", (), points, tuple(memory_table(part) for part in found))


def _memory_sentence(part: Part) -> str:
    ratios = {}
    for point in part.points:
        dense, thin = point.dense.row, part.fastest(point)[0].measured.row
        if dense.peak_memory_bytes is not None and thin.peak_memory_bytes:
            ratios[point.tokens] = dense.peak_memory_bytes / thin.peak_memory_bytes
    if not ratios:
        return f"The peak was not measured at any length ({part.name}); the table shows the formula."
    low, high = (choose(ratios, key=lambda t: ratios[t]) for choose in (min, max))
    return (
        f"At the best rank the measured peak of dense is {ratios[low]:.2f} times (T={low}) to {ratios[high]:.2f} times "
        f"(T={high}) that of the thin chain ({part.name})."
    )


def recommendations_section(report: Report, found: tuple[Part, ...]) -> Section:
    """Return what to run for each weight within three error budgets; dense included."""
    points = tuple(
        f"({part.name}) {within_budget(part, weight, error)}"
        for part in found
        for weight in part.weights
        for error in BUDGETS
    )
    text = "Which rank to run follows from the error that is allowed, never from time alone."
    return Section("Recommendations", (text,), points, (error_table(report),))


def conclusion_section(found: tuple[Part, ...], judged: Sequence[Judged]) -> Section:
    """Return what it comes to."""
    points = []
    for part in found:
        count = sum(bool(gains_within(part, weight, ERROR_BUDGET)) for weight in part.weights)
        points.append(
            f"({part.name}) At any error {len(gains(part))} of {len(part.tokens)} lengths gain; within an error of "
            f"{percent_text(ERROR_BUDGET)}, {count} of {len(part.weights)} weights gain at some length."
        )
        longest = part.points[-1]
        points.append(f"({part.name}) At the longest measured length, {sentence(part, longest)}.")
    return Section("Conclusion", (verdicts_text(judged),), tuple(points))


def statements_section(report: Report) -> tuple[Section, tuple[Judged, ...]]:
    """Return every statement of the origin with its verdict."""
    judged = statements(report)
    return Section("The origin's statements", (verdicts_text(judged),), (), (statements_table(judged),)), judged


def doubts_section(report: Report) -> Section:
    """Return what speaks against the data, and under which conditions it was taken."""
    points = tuple(f"{name}: {value}" for name, value in report.conditions.items())
    return Section("Doubts and conditions", (), points, (doubts_table(report),))
