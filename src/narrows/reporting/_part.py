"""One mode and cache state of a report, ready to be tabulated: modes and caches are never mixed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

from narrows._stats import compare_rows
from narrows._values import CACHES, MODES
from narrows.errors import InputError
from narrows.planning import Scope, pick, plan_from, points, scope

if TYPE_CHECKING:
    from narrows._stats import Comparison
    from narrows._values import Budget, Cache, Mode, Plan, Report
    from narrows.planning import Candidate, Point


@dataclass(frozen=True)
class Part:
    """The measured points of one mode and cache state; every one holds a thin row whose error is known.

    Attributes:
        points: with the errors of the first weight.
        compared: every row of the report against dense.
    """

    report: Report
    mode: Mode
    cache: Cache
    points: tuple[Point, ...]
    compared: tuple[Comparison, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """How titles call it."""
        return f"{self.mode}, {self.cache}"

    @property
    def weights(self) -> tuple[str, ...]:
        """Names; the first one is timed."""
        return tuple(source.name for source in self.report.experiment.weights)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Measured lengths, ascending."""
        return tuple(point.tokens for point in self.points)

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """Measured ranks, ascending."""
        return tuple(sorted({rank for _, rank in self.best}))

    @cached_property
    def best(self) -> dict[tuple[int, int], Comparison]:
        """(tokens, rank) -> its fastest implementation."""
        found: dict[tuple[int, int], Comparison] = {}
        for candidate in (c for point in self.points for c in point.candidates):
            key = (candidate.error.tokens, candidate.rank)
            if key not in found or candidate.measured.time_ns < found[key].time_ns:
                found[key] = candidate.measured
        return found

    @cached_property
    def _fastest(self) -> dict[int, tuple[Candidate, tuple[Candidate, ...]]]:
        return {point.tokens: pick(point.candidates) for point in self.points}

    def plan(self, weight: str, budget: Budget) -> Plan:
        """Return the plan of one weight."""
        where = Scope(weight, self.mode, self.cache)
        return plan_from(self.report, where, points(self.report, where, self.compared), budget)

    def fastest(self, point: Point) -> tuple[Candidate, tuple[int, ...]]:
        """Return the candidate that a point's times alone would take, and the ranks that tie with the fastest."""
        taken, tied = self._fastest[point.tokens]
        return taken, tuple(sorted({candidate.rank for candidate in tied}))

    def error(self, weight: str, tokens: int, rank: int) -> float | None:
        """Return the upper 95 % end of an output error."""
        found = self.report.error(tokens, rank, weight)
        return None if found is None else found.upper95

    def worst_error(self, weight: str, rank: int) -> float | None:
        """Return the largest upper 95 % end over the measured lengths."""
        known = [e for tokens in self.tokens if (e := self.error(weight, tokens, rank)) is not None]
        return max(known, default=None)


def of_weight(report: Report, name: str) -> Report:
    """Return the report with this weight's errors only; the times are those that all weights share.

    Raises:
        InputError: the report holds no such weight.
    """
    scope(report, weight=name)
    experiment = report.experiment
    return replace(
        report,
        experiment=replace(experiment, weights=tuple(w for w in experiment.weights if w.name == name)),
        weights=tuple(w for w in report.weights if w.name == name),
        errors=tuple(e for e in report.errors if e.weight == name),
    )


def parts(report: Report) -> tuple[Part, ...]:
    """Return a part for every mode and cache state with a thin row beside a dense one."""
    measured = {(row.mode, row.cache) for row in report.rows if row.samples_ns}
    asked = [(mode, cache) for mode, cache in product(MODES, CACHES) if (mode, cache) in measured]
    compared = compare_rows(report)
    found = tuple(_part(report, mode, cache, compared) for mode, cache in asked)
    return tuple(part for part in found if part is not None)


def _part(report: Report, mode: Mode, cache: Cache, compared: tuple[Comparison, ...]) -> Part | None:
    try:
        found = points(report, Scope(report.experiment.weights[0].name, mode, cache), compared)
    except InputError:  # no dense side was measured there
        return None
    with_thin = tuple(point for point in found if point.candidates)
    return Part(report, mode, cache, with_thin, compared) if with_thin else None
