"""What the caller asked for: one rank, or the limits of a budget, checked and in numbers of ranks."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from narrows._values import Budget
from narrows.errors import BudgetError, InputError, RankError


@dataclass(frozen=True, slots=True)
class Limits:
    """Attributes:
    largest: the largest rank the caller allows.
    is_bounded: `largest` was asked for (by rank or bytes); False: it is all there is.
    error: relative Frobenius error that a smaller rank may have; None: keep `largest`.
    max_bytes, bytes_per_rank: where `largest` came from, for error texts.
    """

    largest: int
    is_bounded: bool
    error: float | None = None
    max_bytes: int | None = None
    bytes_per_rank: int = 0


def resolve_limits(rank: int | None, budget: Budget | None, *, sizes: dict[str, int], bytes_per_rank: int) -> Limits:
    """Return the limits that rank= or budget= stand for.

    Args:
        sizes: the sizes that bound the rank, by letter ({"D": 64, "E": 32}).
        bytes_per_rank: what one more rank adds to the factors.

    Raises:
        InputError: both are given, or the budget limits what is not measured here.
        RankError: `rank` is not a whole number within 1..min(sizes).
        BudgetError: not even rank 1 fits max_bytes.
    """
    if rank is not None and budget is not None:
        raise InputError(f"rank={rank} and budget={budget} are both given: give one of them.")
    if rank is not None:
        return Limits(_check_rank(rank, sizes), is_bounded=True)
    if budget is None:
        return Limits(min(sizes.values()), is_bounded=False)
    return _from_budget(budget, min(sizes.values()), bytes_per_rank)


def _check_rank(rank: object, sizes: dict[str, int]) -> int:
    bound = "min(" + ", ".join(f"{letter}={size}" for letter, size in sizes.items()) + ")"
    try:
        number = None if isinstance(rank, bool) else operator.index(rank)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None:
        raise RankError(f"rank={rank!r} is a {type(rank).__name__}: give a whole number within 1..{bound}.")
    if not 1 <= number <= min(sizes.values()):
        raise RankError(f"rank={number} is outside 1..{min(sizes.values())} = {bound}. Choose a rank within it.")
    return number


def _from_budget(budget: Budget, full: int, bytes_per_rank: int) -> Limits:
    if not isinstance(budget, Budget):
        raise InputError(f"budget={budget!r} is a {type(budget).__name__}: give a Budget, as Budget(error=0.01).")
    if budget.min_speedup is not None:
        raise InputError(
            f"budget.min_speedup={budget.min_speedup:g} cannot be met here: a factorisation measures no time. "
            "Leave it out, or measure() first and give it to choose()."
        )
    if budget.max_bytes is None:
        return Limits(full, is_bounded=False, error=budget.error)
    fitting = min(full, budget.max_bytes // bytes_per_rank)
    if fitting < 1:
        raise BudgetError(
            f"no rank fits max_bytes={budget.max_bytes}: the nearest is rank 1 with {bytes_per_rank} bytes.",
            nearest={"rank": 1, "bytes": bytes_per_rank},
        )
    return Limits(fitting, True, budget.error, budget.max_bytes, bytes_per_rank)
