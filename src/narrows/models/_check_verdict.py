"""A budget against what was measured: met, broken, or not to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._stats import Ratio, paired_ratio
from narrows._values._check import Estimate, Judgement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows._values import ModelBudget
    from narrows._values._check import Answer, CheckedSide, Timing


def judge(
    budget: ModelBudget, dense: CheckedSide, compressed: CheckedSide, timings: Sequence[Timing]
) -> tuple[Judgement, ...]:
    """Return one judgement for each limit that the budget sets.

    A limit is met only where the whole interval of what was measured lies on its side, and broken only where the
    whole interval lies beyond it. Numbers and bytes are counted: they have no interval.

    Args:
        budget: at least one limit.
        dense, compressed: what both store, and their quality.
        timings: of both at every workload.
    """
    found = []
    if budget.perplexity is not None:
        found.append(_perplexity(budget.perplexity, compressed))
    if budget.keep is not None:
        found.append(_keep(budget.keep, dense, compressed))
    if budget.speedup is not None:
        found.append(_speedup(budget.speedup, timings))
    if budget.max_bytes is not None:
        found.append(_max_bytes(budget.max_bytes, compressed))
    return tuple(found)


def overall_speedup(timings: Sequence[Timing]) -> Ratio | None:
    """Return dense time / compressed time over all workloads by their weights; None where nothing was timed.

    The time of a round is the weighted sum of the workloads' times of that round.
    """
    by_side = {
        side: [[one.workload.weight * ns for ns in one.samples_ns] for one in timings if one.side == side]
        for side in ("dense", "narrows")
    }
    if not by_side["dense"] or not by_side["narrows"]:
        return None
    dense, compressed = ([sum(parts) for parts in zip(*rows, strict=False)] for rows in by_side.values())
    return paired_ratio(dense, compressed)


def _perplexity(limit: float, compressed: CheckedSide) -> Judgement:
    ratio = None if compressed.language is None else compressed.language.ratio
    allowed = f"{100 * limit:g} % is allowed"
    if ratio is None:
        return Judgement("perplexity", limit, None, "cannot tell", f"perplexity was not measured; {allowed}")
    growth = Estimate(ratio.value - 1, _less_one(ratio.low), _less_one(ratio.high))
    if ratio.low is None or ratio.high is None:
        text = f"perplexity changed by {growth.value:.2%}, of too few documents for an interval; {allowed}"
        return Judgement("perplexity", limit, growth, "cannot tell", text)
    text = f"perplexity changed by {growth.value:.2%} (95 %: {ratio.low - 1:.2%} to {ratio.high - 1:.2%}); {allowed}"
    answer = _answer(ratio.high <= 1 + limit, ratio.low > 1 + limit)
    return Judgement("perplexity", limit, growth, answer, text)


def _keep(limit: float, dense: CheckedSide, compressed: CheckedSide) -> Judgement:
    assert dense.numbers
    assert compressed.numbers is not None
    kept = compressed.numbers / dense.numbers
    text = f"{compressed.numbers} of {dense.numbers} numbers are kept, {kept:.2%}; {100 * limit:g} % is allowed"
    return Judgement("keep", limit, Estimate(kept, kept, kept), _answer(kept <= limit, kept > limit), text)


def _speedup(limit: float, timings: Sequence[Timing]) -> Judgement:
    ratio = overall_speedup(timings)
    asked = f"{limit:g}x is asked for"
    if ratio is None:
        return Judgement("speedup", limit, None, "cannot tell", f"no time was measured; {asked}")
    found = Estimate(ratio.value, ratio.low, ratio.high)
    text = f"{ratio.value:.3f}x (99 %: {ratio.low:.3f} to {ratio.high:.3f}); {asked}"
    return Judgement("speedup", limit, found, _answer(ratio.low >= limit, ratio.high < limit), text)


def _max_bytes(limit: int, compressed: CheckedSide) -> Judgement:
    kept = compressed.kept_bytes
    assert kept is not None
    text = f"{kept} bytes are kept; {limit} are allowed"
    return Judgement("max_bytes", limit, Estimate(kept, kept, kept), _answer(kept <= limit, kept > limit), text)


def _answer(is_met: bool, is_broken: bool) -> Answer:
    return "met" if is_met else "broken" if is_broken else "cannot tell"


def _less_one(end: float | None) -> float | None:
    return None if end is None else end - 1
