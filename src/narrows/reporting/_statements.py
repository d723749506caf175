"""Every statement of the origin, numbered, with a verdict from the data and the figures behind it.

The origin is the analysis of low-rank matmuls that this project remakes: S = (X W) X^T, d = 4096,
sequence lengths and middle dimensions 64..4096. Its statements are judged on its own chains:
three thin matmuls against (X W) X^T where both were measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from narrows.reporting._statements_advice import ADVICE
from narrows.reporting._statements_contradictions import CONTRADICTIONS
from narrows.reporting._statements_facts import NotCovered, facts_of
from narrows.reporting._statements_findings import FINDINGS
from narrows.reporting._statements_lengths import BY_LENGTH
from narrows.reporting._statements_theory import THEORY

if TYPE_CHECKING:
    from narrows._values import Report
    from narrows.reporting._statement import Kind, Statement, Verdict
    from narrows.reporting._statements_facts import Facts

STATEMENTS: tuple[Statement, ...] = (*FINDINGS, *BY_LENGTH, *THEORY, *ADVICE, *CONTRADICTIONS)


@dataclass(frozen=True, slots=True)
class Judged:
    """A statement with its verdict.

    Attributes:
        number: from 1, in the origin's order; its contradictions with itself come last.
        quote: its own words.
        kind: measurement, law, recommendation or contradiction.
        verdict: "holds", "refuted" or "cannot tell"; of a contradiction: whether its first half holds.
        figures: the numbers of the data behind the verdict, one sentence or two.
    """

    number: int
    quote: str
    kind: Kind
    verdict: Verdict
    figures: str


def statements(report: Report) -> tuple[Judged, ...]:
    """Return every statement of the origin with its verdict from this report.

    The first mode and cache state of the report that was measured is judged. "cannot tell" where
    the report does not cover what a statement speaks of.
    """
    try:
        facts = facts_of(report)
    except NotCovered as reason:
        return tuple(_unknown(number, one, reason) for number, one in enumerate(STATEMENTS, start=1))
    return tuple(judged(number, one, facts) for number, one in enumerate(STATEMENTS, start=1))


def judged(number: int, statement: Statement, facts: Facts) -> Judged:
    """Return one statement's verdict."""
    try:
        verdict, figures = statement.judge(facts)
    except NotCovered as reason:
        return _unknown(number, statement, reason)
    return Judged(number, statement.quote, statement.kind, verdict, figures)


def _unknown(number: int, statement: Statement, reason: NotCovered) -> Judged:
    return Judged(number, statement.quote, statement.kind, "cannot tell", str(reason))
