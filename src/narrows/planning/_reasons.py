"""Why a plan says what it says: one sentence each, with figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._stats import KNOWN_WIDTH, against
from narrows.planning._frontier import feasible, meets_bytes, meets_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from narrows._stats import Ratio
    from narrows._values import Budget
    from narrows.planning._frontier import Candidate, Point


WIDE = f"the interval is {100 * KNOWN_WIDTH:g} % wide or wider, which more rounds (--minutes) narrow"


def thin_reasons(point: Point, taken: Candidate, tied: tuple[Candidate, ...], budget: Budget) -> tuple[str, ...]:
    """Return why this rank, at a measured length."""
    dense = point.dense
    reasons = [
        (
            f"At T={point.tokens} {taken} takes {ms(taken.measured.time_ns)} and dense ({dense.row.variant}) "
            f"{ms(dense.time_ns)}: {interval(taken.measured.speedup)}."
        ),
        error_reason(taken, budget),
    ]
    if budget.max_bytes is not None:
        reasons.append(f"Its factors take {taken.num_bytes} of at most {budget.max_bytes} bytes.")
    if budget.min_speedup is not None:
        reasons.append(
            f"The lower end of its speedup, {taken.measured.speedup.low:.3f}x, meets {budget.min_speedup:g}x."
        )
    open_ones = _not_told_apart(taken, feasible(point, budget))
    return (*reasons, *_tie_reason(taken, tied), *open_ones, *_passed_over(point, budget), *_doubts(taken))


def error_reason(taken: Candidate, budget: Budget) -> str:
    """Return what the rank costs in accuracy, and against which budget."""
    figure = f"{taken.error.upper95:.3g} (upper 95 % end, weight {taken.error.weight})"
    if budget.error is None:
        return f"No error was bounded: rank {taken.rank} has an error of {figure}."
    return f"Its error is {figure}, within the budget of {budget.error:g}."


def _tie_reason(taken: Candidate, tied: tuple[Candidate, ...]) -> tuple[str, ...]:
    smaller = sorted({c.rank for c in tied} - {taken.rank})
    if not smaller:
        return ()
    return (
        (
            f"Its time cannot be told apart from that of rank {numbers(smaller)}; among ties the largest rank is "
            "taken, because its accuracy costs no time."
        ),
    )


def _not_told_apart(taken: Candidate, candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """Return which other ranks may be faster or slower than the one taken, for all that was measured."""
    pairs = ((c.rank, against(c.measured.row, taken.measured.row)) for c in candidates if c.rank != taken.rank)
    ranks = sorted({rank for rank, ratio in pairs if ratio is None or _is_open(ratio)})
    return (f"Cannot tell its time from that of rank {numbers(ranks)}: {WIDE}.",) if ranks else ()


def _not_told_from_dense(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """Return which ranks may be faster than dense, for all that was measured."""
    ranks = sorted({c.rank for c in candidates if _is_open(c.measured.speedup)})
    return (f"Cannot tell whether rank {numbers(ranks)} is faster than dense: {WIDE}.",) if ranks else ()


def _is_open(ratio: Ratio) -> bool:
    """Say whether a ratio may be above or below 1 and is not known well enough to call it a tie."""
    return ratio.verdict in {"tie", "unknown"} and not ratio.is_known_tie


def _passed_over(point: Point, budget: Budget) -> tuple[str, ...]:
    """Return which ranks were not considered, and why."""
    found = []
    inaccurate = sorted({c.rank for c in point.candidates if not meets_error(c, budget)})
    if inaccurate:
        found.append(f"Rank {numbers(inaccurate)}: the error is over the budget of {budget.error:g}.")
    large = sorted({c.rank for c in point.candidates if not meets_bytes(c.num_bytes, budget)})
    if large:
        found.append(f"Rank {numbers(large)}: the factors take more than {budget.max_bytes} bytes.")
    accurate = {c.rank for c in point.candidates if meets_error(c, budget) and meets_bytes(c.num_bytes, budget)}
    slow = sorted(accurate - {c.rank for c in feasible(point, budget)})
    if slow:
        asked = budget.min_speedup
        lack = "not faster than dense" if asked is None else f"no speedup of {asked:g}"
        found.append(f"Rank {numbers(slow)}: {lack} beyond doubt.")
    return tuple(found)


def _doubts(taken: Candidate) -> tuple[str, ...]:
    return tuple(f"Doubt about {taken}: {doubt}." for doubt in taken.measured.doubts)


def dense_reasons(point: Point, budget: Budget) -> tuple[str, ...]:
    """Return why dense, at a measured length."""
    dense = f"dense ({point.dense.row.variant}), {ms(point.dense.time_ns)}"
    if not point.candidates:
        return (f"At T={point.tokens} no rank was measured with its error, so {dense}, stays.",)
    accurate = [c for c in point.candidates if meets_error(c, budget)]
    if not accurate:
        least = min(point.candidates, key=lambda c: c.error.upper95)
        return (
            (
                f"At T={point.tokens} no measured rank meets the error budget of {budget.error:g}: the smallest "
                f"error is {least.error.upper95:.3g} at rank {least.rank}; {dense}, stays."
            ),
        )
    fitting = [c for c in accurate if meets_bytes(c.num_bytes, budget)]
    if not fitting:
        least = min(accurate, key=lambda c: c.num_bytes)
        return (
            (
                f"At T={point.tokens} no rank that meets the error fits {budget.max_bytes} bytes: the smallest takes "
                f"{least.num_bytes} (rank {least.rank}); {dense}, stays."
            ),
        )
    best = max(fitting, key=lambda c: c.measured.speedup.value)
    return (
        (
            f"At T={point.tokens} no admitted rank is faster than {dense}, beyond doubt: the best, {best}, gives "
            f"{interval(best.measured.speedup)}; dense wins ties."
        ),
        *_not_told_from_dense(fitting),
        *_passed_over(point, budget),
        *_doubts(best),
    )


def between_reasons(left: Point, right: Point, at_left: Candidate, at_right: Candidate) -> tuple[str, ...]:
    """Return why one rank between two measured lengths."""
    return (
        (
            f"Between T={left.tokens} and T={right.tokens} {at_left} is taken, which meets the budget at both ends: "
            f"{interval(at_left.measured.speedup)} and {interval(at_right.measured.speedup)}."
        ),
        *_doubts_of((at_left, at_right)),
    )


def dense_between_reasons(left: Point, right: Point, budget: Budget) -> tuple[str, ...]:
    """Return why dense between two measured lengths."""
    at_left = sorted({c.rank for c in feasible(left, budget)})
    at_right = sorted({c.rank for c in feasible(right, budget)})
    return (
        (
            f"Between T={left.tokens} and T={right.tokens} dense stays: no rank and implementation is admitted at both "
            f"ends (T={left.tokens}: rank {numbers(at_left)}; T={right.tokens}: rank {numbers(at_right)})."
        ),
    )


def _doubts_of(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    return tuple(f"Doubt about {c} at T={c.error.tokens}: {doubt}." for c in candidates for doubt in c.measured.doubts)


def interval(ratio: Ratio) -> str:
    """Return a ratio with its 99 % interval."""
    return f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"


def ms(time_ns: float) -> str:
    """Return a time in ms with four significant figures."""
    return f"{time_ns / 1e6:.4g} ms"


def numbers(values: list[int]) -> str:
    """Return "64, 128"; "none" when there is nothing."""
    return ", ".join(str(value) for value in values) or "none"
