"""What can be chosen at each measured length, and which of it a budget admits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from narrows._stats import against, compare_rows
from narrows.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from narrows._stats import Comparison
    from narrows._values import Budget, Cache, Mode, OutputError, Report

_Name = TypeVar("_Name", bound=str)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of a report a decision reads: one weight, one mode, one cache state."""

    weight: str
    mode: Mode
    cache: Cache


@dataclass(frozen=True, slots=True)
class Candidate:
    """A thin row with what a budget asks of it.

    Attributes:
        measured: the row against dense.
        error: of the scope's weight.
        num_bytes: of the factors.
    """

    measured: Comparison
    error: OutputError
    num_bytes: int

    @property
    def rank(self) -> int:
        """R."""
        return self.error.rank

    @property
    def variant(self) -> str:
        """Name of the implementation."""
        return self.measured.row.variant

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.variant})"


@dataclass(frozen=True, slots=True)
class Point:
    """One measured length: the faster dense side and every thin row whose error is known."""

    tokens: int
    dense: Comparison
    dense_bytes: int
    candidates: tuple[Candidate, ...]


def scope(report: Report, *, weight: str | None = None, mode: str | None = None, cache: str | None = None) -> Scope:
    """Return the part of the report that is meant; defaults: its first weight, mode and cache state.

    Raises:
        InputError: the report holds no such weight, mode or cache state.
    """
    experiment = report.experiment
    names = tuple(source.name for source in experiment.weights)
    return Scope(
        weight=_one_of("weight", weight, names),
        mode=_one_of("mode", mode, experiment.modes),
        cache=_one_of("cache", cache, experiment.caches),
    )


def _one_of(name: str, value: str | None, known: Sequence[_Name]) -> _Name:
    for item in known:
        if value is None or item == value:
            return item
    raise InputError(f"{name}={value!r} is not in this report, which holds: {', '.join(known)}. Choose one of them.")


def points(report: Report, where: Scope, compared: Iterable[Comparison] | None = None) -> tuple[Point, ...]:
    """Return every length at which dense was measured, ascending.

    A thin row whose error is not known is no candidate: its price is not known.

    Args:
        compared: what `compare_rows` says of the report, where it was asked already.

    Raises:
        InputError: no length has a measured dense side in this scope.
    """
    by_tokens: dict[int, list[Comparison]] = {}
    for found in compare_rows(report) if compared is None else compared:
        if (found.row.mode, found.row.cache) == (where.mode, where.cache):
            by_tokens.setdefault(found.row.tokens, []).append(found)
    if not by_tokens:
        raise InputError(
            f"This report holds no measured dense row in mode={where.mode}, cache={where.cache}: "
            "nothing can be compared. Measure again, or choose another mode or cache."
        )
    return tuple(_point(report, where, tokens, by_tokens[tokens]) for tokens in sorted(by_tokens))


def _point(report: Report, where: Scope, tokens: int, found: Sequence[Comparison]) -> Point:
    dense = next(c for c in found if c.row is c.dense)
    candidates = []
    for measured in found:
        rank = measured.row.rank
        error = None if rank is None else report.error(tokens, rank, where.weight)
        if rank is not None and error is not None:
            candidates.append(Candidate(measured, error, factor_bytes(report, rank)))
    return Point(tokens, dense, dense_bytes(report, dense.row.variant), tuple(candidates))


def factor_bytes(report: Report, rank: int) -> int:
    """Return the bytes of both factors, over all heads."""
    problem = report.problem(1)
    return problem.itemsize * problem.heads * rank * (problem.in_features + problem.out_features)


def dense_bytes(report: Report, association: str) -> int:
    """Return the bytes of the weight as the dense side stores it (a product as its two operands)."""
    problem = report.problem(1)
    if association == "given" and problem.given_rank is not None:
        kv_heads = problem.kv_heads or problem.heads
        rows = problem.heads * problem.in_features + kv_heads * problem.out_features
        return problem.itemsize * problem.given_rank * rows
    return problem.itemsize * problem.heads * problem.in_features * problem.out_features


def dense_allowed(point: Point, budget: Budget) -> bool:
    """Return whether dense itself meets the budget: its speedup is 1, its error 0."""
    fast_enough = budget.min_speedup is None or budget.min_speedup <= 1
    return fast_enough and (budget.max_bytes is None or point.dense_bytes <= budget.max_bytes)


def meets_error(candidate: Candidate, budget: Budget) -> bool:
    """Return whether the upper 95 % end of the error is within the budget."""
    return budget.error is None or candidate.error.upper95 <= budget.error


def meets_bytes(num_bytes: int, budget: Budget) -> bool:
    """Return whether a size is within the budget."""
    return budget.max_bytes is None or num_bytes <= budget.max_bytes


def feasible(point: Point, budget: Budget) -> tuple[Candidate, ...]:
    """Return the candidates within the budget that beat dense, where dense may be chosen at all.

    Where the budget rules dense out (its bytes, or a speedup above 1 is asked for), a thin row
    need not beat it.
    """
    least = budget.min_speedup or 0.0
    must_win = dense_allowed(point, budget)
    return tuple(
        c
        for c in point.candidates
        if meets_error(c, budget)
        and meets_bytes(c.num_bytes, budget)
        and c.measured.speedup.low >= least
        and (not must_win or c.measured.speedup.verdict == "faster")
    )


def pick(candidates: Sequence[Candidate]) -> tuple[Candidate, tuple[Candidate, ...]]:
    """Return the candidate to take and all that cannot be told apart from the fastest one in time.

    The fastest has the largest speedup (each is paired with dense, so rows of different days can be
    compared); among its ties the largest rank is taken (accuracy is
    free until time says otherwise), and of that rank the fastest implementation.
    """
    fastest = max(candidates, key=lambda c: c.measured.speedup.value)
    tied = tuple(c for c in candidates if c is fastest or is_tie(c, fastest))
    return max(tied, key=lambda c: (c.rank, c.measured.speedup.value)), tied


def is_tie(one: Candidate, other: Candidate) -> bool:
    """Return whether two rows of one length take the same time as far as can be told, paired by round.

    A wide interval is no tie: it says that nothing is known, and then the faster one is taken.
    """
    ratio = against(one.measured.row, other.measured.row)
    return ratio is not None and ratio.is_known_tie
