"""The origin's design choices, recommendations and conclusion."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from narrows._stats import TIE, against
from narrows.reporting._statement import Statement, answer
from narrows.reporting._statements_facts import NotCovered, slope_text
from narrows.reporting._statements_findings import DRAMATIC
from narrows.reporting._statements_judging import best_rank_within, geometric_speedups, growth
from narrows.reporting._statements_lengths import ORIGIN_TABLE, SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from narrows._values import Row
    from narrows.reporting._statement import Answer
    from narrows.reporting._statements_facts import Facts


def _dynamic_rank(facts: Facts) -> Answer:
    if len(facts.tokens) < 2:
        raise NotCovered(f"Needs more than one length; measured: {facts.tokens[0]}.")
    scores = geometric_speedups(facts)
    single = max(scores, key=lambda rank: scores[rank])
    gains = {}
    for t in facts.tokens:
        ratio = against(facts.thin[t, facts.best(t)].row, facts.thin[t, single].row)
        if ratio is not None and ratio.verdict == "faster":
            gains[t] = ratio
    figures = "; ".join(f"T={t}: rank {facts.best(t)} is {ratio.value:.2f}x faster" for t, ratio in gains.items())
    return answer(bool(gains), f"Over rank {single} everywhere: {figures or 'no rank is faster at any length'}.")


def _fixed_length(facts: Facts) -> Answer:
    holds = any(facts.top(t).low >= SMALL for t in facts.tokens)
    return answer(holds, f"Largest speedups: {facts.tops(facts.tokens)}")


def _default_is_64(facts: Facts) -> Answer:
    facts.need_ranks(facts.tokens, 64)
    scores = geometric_speedups(facts)
    best = max(scores, key=lambda rank: scores[rank])
    figures = ", ".join(f"rank {rank}: {score:.2f}x" for rank, score in scores.items())
    worst = facts.part.worst_error(facts.part.weights[0], 64)
    paid = "not known" if worst is None else f"{worst:.1%}"
    return answer(
        scores[64] * (1 + TIE) >= scores[best], f"Geometric mean over lengths: {figures} (rank 64's error: {paid})."
    )


def _below(tokens: int, rank: int) -> Callable[[Facts], Answer]:
    return _advised(lambda length: length < tokens, f"below {tokens}", rank)


def _from(tokens: int, rank: int) -> Callable[[Facts], Answer]:
    return _advised(lambda length: length >= tokens, f"of at least {tokens}", rank)


def _advised(applies: Callable[[int], bool], name: str, rank: int) -> Callable[[Facts], Answer]:
    """Return a judge of "at these lengths use this rank": it must be among the fastest at each."""

    def judge(facts: Facts) -> Answer:
        lengths = [t for t in facts.tokens if applies(t)]
        if not lengths:
            raise NotCovered(f"Needs a length {name}.")
        facts.need_choice(lengths, rank, rank)
        holds = all(rank in facts.ties(t) for t in lengths)
        rows = "; ".join(facts.cost(t, rank) for t in lengths)
        return answer(holds, f"Fastest ranks: {facts.bests(lengths)} Rank {rank} itself: {rows}.")

    return judge


def _use_the_table(facts: Facts) -> Answer:
    lengths = facts.lengths(min(ORIGIN_TABLE), max(ORIGIN_TABLE))
    tabled = [t for t in lengths if t in ORIGIN_TABLE]
    for t in tabled:
        facts.need_ranks((t,), ORIGIN_TABLE[t][0])
    wrong = [t for t in tabled if ORIGIN_TABLE[t][0] not in facts.ties(t)]
    return answer(
        not wrong, f"Its rank is not among the fastest at {len(wrong)} of {len(tabled)} lengths. {facts.bests(tabled)}"
    )


def _less_memory(facts: Facts) -> Answer:
    found = {t: (facts.dense[t], facts.thin[t, facts.best(t)].row) for t in facts.tokens}
    peaks = {t: _peaks(*rows) for t, rows in found.items()}
    figures = "; ".join(f"T={t}: {dense / thin:.2f} times less" for t, (dense, thin) in peaks.items())
    return answer(
        all(thin * (1 + TIE) < dense for dense, thin in peaks.values()), f"Measured peak at the best rank: {figures}."
    )


def _peaks(dense: Row, thin: Row) -> tuple[int, int]:
    if dense.peak_memory_bytes is None or thin.peak_memory_bytes is None:
        by_formula = dense.memory_bytes / max(thin.memory_bytes, 1)
        raise NotCovered(f"No peak was measured at T={dense.tokens}; by formula {by_formula:.2f} times less.")
    return dense.peak_memory_bytes, max(thin.peak_memory_bytes, 1)


def _dramatic(facts: Facts) -> Answer:
    factor, figures = growth(facts)
    improved = any(facts.top(t).low >= DRAMATIC for t in facts.tokens)
    return answer(improved and factor > 1, f"{figures}.")


def _superlinear(facts: Facts) -> Answer:
    slope = facts.slope([facts.top(t).value for t in facts.tokens])
    figures = f"Largest speedup against length: {slope_text(slope)}; superlinear is above 1. {facts.tops(facts.tokens)}"
    if slope.low <= 1 < slope.high:
        return "cannot tell", figures
    return answer(slope.low > 1, figures)


def _ever_more_valuable(facts: Facts) -> Answer:
    _, figures = growth(facts)
    tops = [facts.top(t) for t in facts.tokens]
    falls = sum(after.high < before.low for before, after in pairwise(tops))
    return answer(not falls and tops[-1].low > tops[0].high, f"{figures}; {falls} of {len(tops) - 1} steps fall.")


def _mostly_64(facts: Facts) -> Answer:
    lengths = [t for t in facts.tokens if t > 512]
    if not lengths:
        raise NotCovered("Needs lengths over 512.")
    facts.need_choice(lengths, 64, 64)
    count = sum(64 in facts.ties(t) for t in lengths)
    return answer(
        2 * count > len(lengths), f"Rank 64 is among the fastest at {count} of {len(lengths)}: {facts.bests(lengths)}"
    )


ADVICE = (
    Statement(
        "For applications with varying sequence lengths, a dynamic middle dimension selection could be beneficial",
        "recommendation",
        _dynamic_rank,
    ),
    Statement(
        "For fixed sequence length applications, selecting the optimal middle dimension can provide "
        "substantial speedups",
        "recommendation",
        _fixed_length,
    ),
    Statement(
        "For general use cases, a middle dimension of 64 provides the best overall performance across "
        "sequence lengths.",
        "recommendation",
        _default_is_64,
    ),
    Statement("For seq_len < 256: Use middle_dim = 256", "recommendation", _below(256, 256)),
    Statement("For seq_len ≥ 256: Use middle_dim = 64", "recommendation", _from(256, 64)),
    Statement(
        "For maximum performance, use the table of optimal configurations above to select the best middle dimension "
        "for your specific sequence length.",
        "recommendation",
        _use_the_table,
    ),
    Statement(
        "may also reduce peak memory usage during matrix multiplication, making it suitable for "
        "memory-constrained environments.",
        "recommendation",
        _less_memory,
    ),
    Statement(
        "SVD factorization of matrix multiplications with appropriate middle dimensions can yield dramatic "
        "performance improvements, especially for longer sequence lengths.",
        "measurement",
        _dramatic,
    ),
    Statement("The benefits increase superlinearly with sequence length", "law", _superlinear),
    Statement(
        "this optimization approach becomes increasingly valuable as models process longer sequences",
        "law",
        _ever_more_valuable,
    ),
    Statement(
        "using small middle dimensions (64-256) consistently provides the best performance",
        "measurement",
        best_rank_within(64, 4096, 64, 256),
    ),
    Statement("with middle_dim=64 being optimal for most sequence lengths over 512", "measurement", _mostly_64),
)
