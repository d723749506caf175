"""A report as a document in the origin's sections; every sentence is derived from the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.reporting import _sections_cost as cost
from narrows.reporting import _sections_speed as speed
from narrows.reporting._part import parts
from narrows.reporting._records import Document as Document
from narrows.reporting._records import Section as Section

if TYPE_CHECKING:
    from narrows._values import Report

TITLE = "Speedup analysis: low-rank matrix multiplication"


def document(report: Report) -> Document:
    """Return the document of a report: the origin's sections, remade from what was measured.

    A report without a measured thin row beside a dense one has only the statements and the doubts.
    """
    found = parts(report)
    judged_section, judged = cost.statements_section(report)
    measured: tuple[Section, ...] = ()
    if found:
        measured = (
            speed.findings_section(report, found),
            speed.optimal_section(report, found),
            *speed.band_sections(found),
            cost.complexity_section(found),
            cost.practical_section(found),
            cost.memory_section(found),
            cost.recommendations_section(report, found),
            cost.conclusion_section(found, judged),
        )
    nothing = () if found else ("Nothing was measured: no thin row stands beside a dense one.",)
    sections = (*measured, judged_section, cost.doubts_section(report))
    return Document(f"{TITLE} on {report.machine.name}", (*speed.describe(report), *nothing), sections)
