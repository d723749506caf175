"""From a report and a budget to a plan: one choice a measured length, one between each two."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from narrows._values import Budget, Plan
from narrows.errors import InputError
from narrows.planning import _reasons as why
from narrows.planning._choices import dense_between, dense_choice, thin_between, thin_choice
from narrows.planning._frontier import dense_allowed, feasible, is_tie, pick, points, scope
from narrows.planning._infeasible import between_error, infeasible_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from narrows._values import Choice, Report
    from narrows.planning._frontier import Candidate, Point, Scope


def choose(
    report: Report,
    budget: Budget | None = None,
    *,
    tokens: int | None = None,
    weight: str | None = None,
    mode: str | None = None,
    cache: str | None = None,
) -> Plan:
    """Return what to run: dense, or a rank and an implementation, for every measured length, with reasons.

    Of the ranks that meet the budget and are faster than dense beyond doubt, the fastest; among
    those that cannot be told apart from it in time, the largest rank. Dense wins ties. Between two
    measured lengths a rank must win at both; outside them nothing is known.

    Args:
        report: what was measured; any machine may read it.
        budget: default no limit; the reasons then say that no error was bounded.
        tokens: only this length: a measured one, or one between two measured ones. Default: all.
        weight, mode, cache: which part of the report; default its first.

    Raises:
        InputError: `tokens` is outside the measured lengths, or the report lacks the weight,
            mode or cache.
        BudgetError: nothing meets the budget; `nearest` is the Choice that comes nearest.
    """
    limits = budget or Budget()
    where = scope(report, weight=weight, mode=mode, cache=cache)
    found = points(report, where)
    return plan_from(report, where, found, limits, tokens=tokens)


def plan_from(
    report: Report, where: Scope, found: Sequence[Point], budget: Budget, *, tokens: int | None = None
) -> Plan:
    """Return the plan that `choose` makes, from points that are known already."""
    choices = tuple(_choices(found, budget)) if tokens is None else (_choice_at(found, tokens, budget),)
    experiment = report.experiment
    return Plan(
        kind=experiment.kind,
        in_features=experiment.in_features,
        out_features=experiment.out_features,
        heads=experiment.heads,
        dtype=experiment.dtype,
        mode=where.mode,
        cache=where.cache,
        weight=where.weight,
        budget=budget,
        choices=choices,
        fingerprint=report.machine.fingerprint,
        device_name=report.machine.name,
        version=report.version,
    )


def _choices(found: Sequence[Point], budget: Budget) -> Iterator[Choice]:
    yield _measured(found[0], budget)
    for left, right in pairwise(found):
        if right.tokens - left.tokens > 1:
            yield _between(left, right, budget)
        yield _measured(right, budget)


def _choice_at(found: Sequence[Point], tokens: int, budget: Budget) -> Choice:
    for point in found:
        if point.tokens == tokens:
            return _measured(point, budget)
    for left, right in pairwise(found):
        if left.tokens < tokens < right.tokens:
            return _between(left, right, budget)
    raise InputError(
        f"tokens={tokens} is outside {found[0].tokens}..{found[-1].tokens}, the measured lengths "
        f"({', '.join(str(p.tokens) for p in found)}). Measure there too."
    )


def _measured(point: Point, budget: Budget) -> Choice:
    """Return the choice at a measured length."""
    candidates = feasible(point, budget)
    if candidates:
        taken, tied = pick(candidates)
        return thin_choice(point, taken, why.thin_reasons(point, taken, tied, budget))
    if dense_allowed(point, budget):
        return dense_choice(point, why.dense_reasons(point, budget))
    raise infeasible_error(point, budget)


def _between(left: Point, right: Point, budget: Budget) -> Choice:
    """Return the choice for the lengths between two measured ones."""
    ends = _winners_at_both(left, right, budget)
    if ends:
        at_left, at_right = _pick_between(ends)
        return thin_between(left, right, (at_left, at_right), why.between_reasons(left, right, at_left, at_right))
    if dense_allowed(left, budget) and dense_allowed(right, budget):
        return dense_between(left, right, why.dense_between_reasons(left, right, budget))
    raise between_error(left, right, budget)


def _winners_at_both(left: Point, right: Point, budget: Budget) -> list[tuple[Candidate, Candidate]]:
    at_right = {(c.rank, c.variant): c for c in feasible(right, budget)}
    return [(c, at_right[key]) for c in feasible(left, budget) if (key := (c.rank, c.variant)) in at_right]


def _pick_between(ends: Sequence[tuple[Candidate, Candidate]]) -> tuple[Candidate, Candidate]:
    """Return the pair with the best worse end; among those that tie with it at both ends, the largest rank."""
    best = max(ends, key=_worse_speedup)
    tied = [e for e in ends if e is best or (is_tie(e[0], best[0]) and is_tie(e[1], best[1]))]
    return max(tied, key=lambda e: (e[0].rank, _worse_speedup(e)))


def _worse_speedup(ends: tuple[Candidate, Candidate]) -> float:
    return min(end.measured.speedup.value for end in ends)
