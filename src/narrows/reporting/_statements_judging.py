"""Judgements that several statements share: which rank is best, how large a speedup is, does it grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from narrows._stats import median
from narrows.reporting._statement import answer
from narrows.reporting._statements_facts import NotCovered, reaches, slope_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from narrows.reporting._statement import Answer
    from narrows.reporting._statements_facts import Facts


def best_rank_within(first: int, last: int, low: int, high: int) -> Callable[[Facts], Answer]:
    """Return a judge of "at lengths first..last the best rank lies in low..high" (a tie is enough)."""

    def judge(facts: Facts) -> Answer:
        tokens = facts.lengths(first, last)
        facts.need_choice(tokens, low, high)
        holds = all(any(low <= rank <= high for rank in facts.ties(length)) for length in tokens)
        return answer(holds, f"Fastest ranks: {facts.bests(tokens)}")

    return judge


def largest_speedup_is(tokens: int, low: float, high: float) -> Callable[[Facts], Answer]:
    """Return a judge of "at this length the largest speedup is low..high"."""
    return largest_speedups_are(tokens, tokens, low, high)


def largest_speedups_are(first: int, last: int, low: float, high: float) -> Callable[[Facts], Answer]:
    """Return a judge of "at lengths first..last the largest speedups lie in low..high"."""

    def judge(facts: Facts) -> Answer:
        tokens = facts.lengths(first, last)
        holds = all(reaches(facts.top(length), low, high) for length in tokens)
        return answer(holds, f"Largest speedups: {facts.tops(tokens)}")

    return judge


def table_row(tokens: int, rank: int, speedup: float) -> Callable[[Facts], Answer]:
    """Return a judge of a row of the origin's table: this rank is best and gives this speedup."""

    def judge(facts: Facts) -> Answer:
        facts.need_ranks((tokens,), rank)
        is_best = rank in facts.ties(tokens)
        is_as_fast = reaches(facts.speedup(tokens, rank), speedup, speedup)
        parts = f"the rank {'agrees' if is_best else 'does not'}, the speedup {'agrees' if is_as_fast else 'does not'}"
        figures = f"Fastest: {facts.cost(tokens, facts.best(tokens))}; the table's {facts.cost(tokens, rank)}: {parts}."
        return answer(is_best and is_as_fast, figures)

    return judge


def growth(facts: Facts) -> tuple[float, str]:
    """Return the largest speedup at the longest length over that at the shortest, and the figures."""
    first, last = facts.tokens[0], facts.tokens[-1]
    if first == last:
        raise NotCovered(f"Needs more than one length; measured: {first}.")
    factor = facts.top(last).value / facts.top(first).value
    return factor, f"{facts.tops((first, last))[:-1]}: {factor:.2f} times as much"


def top_slope_text(facts: Facts) -> str:
    """Return the fitted growth of the largest speedup with length."""
    return slope_text(facts.slope([facts.top(t).value for t in facts.tokens]))


def geometric_speedups(facts: Facts) -> dict[int, float]:
    """Return rank -> geometric mean of its speedup over all lengths, for ranks measured at every length."""
    everywhere = set.intersection(*(set(facts.ranks(t)) for t in facts.tokens))
    if len(everywhere) < 2:
        raise NotCovered("Needs at least two ranks that were measured at every length.")
    return {
        rank: float(np.exp(np.mean([np.log(facts.speedup(t, rank).value) for t in facts.tokens])))
        for rank in sorted(everywhere)
    }


def sensitivity(facts: Facts, tokens: int) -> float:
    """Return how much the rank matters at a length: the spread (standard deviation) of log2 time over ranks."""
    ranks = facts.ranks(tokens)
    if len(ranks) < 3:
        raise NotCovered(f"Needs at least 3 ranks at T={tokens}; measured: {len(ranks)}.")
    return float(np.std(np.log2([facts.thin[tokens, rank].time_ns for rank in ranks])))


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean."""
    return float(np.mean(values))


def dense_times(facts: Facts) -> list[float]:
    """Return the median time of the origin's dense chain at each length."""
    return [median(facts.dense[t].samples_ns) for t in facts.tokens]
