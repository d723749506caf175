"""The answer "no": what comes nearest to a budget that nothing meets, and what would have to give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.errors import BudgetError
from narrows.planning._choices import dense_choice, thin_choice
from narrows.planning._frontier import feasible, meets_bytes, meets_error

if TYPE_CHECKING:
    from narrows._values import Budget
    from narrows.planning._frontier import Candidate, Point


def infeasible_error(point: Point, budget: Budget) -> BudgetError:
    """Return the error for a measured length; its `nearest` is a Choice.

    Nearest is what keeps the error (and the bytes, where something does) and comes closest in
    what is left: the largest speedup, or the fewest bytes.
    """
    taken = _nearest(point, budget)
    asked = _asked(budget)
    if taken is None:
        nearest = dense_choice(point, (f"Nearest to {asked}.",))
        figures = f"dense, 1.00x, error 0, {point.dense_bytes} bytes"
    else:
        nearest = thin_choice(point, taken, (f"Nearest to {asked}.",))
        figures = (
            f"{taken}, {taken.measured.speedup.value:.2f}x (at least {taken.measured.speedup.low:.3f}x), "
            f"error {taken.error.upper95:.3g}, {taken.num_bytes} bytes"
        )
    return BudgetError(
        f"Nothing meets {asked} at T={point.tokens}. Nearest: {figures}.{_other_way(point, budget)}", nearest
    )


def between_error(left: Point, right: Point, budget: Budget) -> BudgetError:
    """Return the error for the lengths between two measured ones."""
    ends = ", ".join(
        f"T={p.tokens}: rank {', '.join(str(r) for r in sorted({c.rank for c in feasible(p, budget)})) or 'none'}"
        for p in (left, right)
    )
    return BudgetError(
        f"Between T={left.tokens} and T={right.tokens} no one rank meets {_asked(budget)} at both ends ({ends}). "
        "Measure a length between them, or ask for a measured one."
    )


def _asked(budget: Budget) -> str:
    parts = {"min_speedup": budget.min_speedup, "max_bytes": budget.max_bytes, "error": budget.error}
    return ", ".join(f"{name}={value:.10g}" for name, value in parts.items() if value is not None)


def _nearest(point: Point, budget: Budget) -> Candidate | None:
    """Return the candidate that comes nearest; None: dense does."""
    accurate = [c for c in point.candidates if meets_error(c, budget)]
    fitting = [c for c in accurate if meets_bytes(c.num_bytes, budget)]
    dense_fits = meets_bytes(point.dense_bytes, budget)
    if fitting or dense_fits:
        best = max(fitting, key=lambda c: c.measured.speedup.low, default=None)
        return best if best and (not dense_fits or best.measured.speedup.low > 1) else None
    smallest = min(accurate, key=lambda c: c.num_bytes, default=None)
    return smallest if smallest and smallest.num_bytes < point.dense_bytes else None


def _other_way(point: Point, budget: Budget) -> str:
    """Return the smallest error with which the other limits could be kept."""
    if budget.error is None:
        return ""
    least = budget.min_speedup or 0.0
    rest = [c for c in point.candidates if meets_bytes(c.num_bytes, budget) and c.measured.speedup.low >= least]
    taken = min(rest, key=lambda c: c.error.upper95, default=None)
    if taken is None:
        return " No measured rank meets the other limits with any error."
    return f" With error={taken.error.upper95:.3g} the other limits are met by {taken}."
