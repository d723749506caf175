"""The origin's key findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.reporting._statement import Statement, answer
from narrows.reporting._statements_facts import NotCovered
from narrows.reporting._statements_judging import (
    best_rank_within,
    growth,
    largest_speedup_is,
    top_slope_text,
)

if TYPE_CHECKING:
    from narrows.reporting._statement import Answer
    from narrows.reporting._statements_facts import Facts

DRAMATIC = 2.0  # times: the least that "dramatic" can mean; the origin's own table grows 8.2 times


def _headline(facts: Facts) -> Answer:
    ranks = [rank for rank in facts.ranks(4096) if rank <= 256]
    if not ranks:
        raise NotCovered("Needs a rank of at most 256 at T=4096.")
    best = max(ranks, key=lambda rank: facts.speedup(4096, rank).value)
    return answer(facts.speedup(4096, best).high >= 9.46, f"Largest: {facts.cost(4096, best)}.")


def _grows_dramatically(facts: Facts) -> Answer:
    factor, figures = growth(facts)
    return answer(factor >= DRAMATIC, f"{figures}; {top_slope_text(facts)}.")


def _large_ranks_lose(facts: Facts) -> Answer:
    found = {t: [rank for rank in facts.ranks(t) if rank > 1024] for t in facts.tokens}
    if not all(found.values()):
        raise NotCovered("Needs ranks above 1024 at every length.")
    slower = {t: [r for r in ranks if facts.speedup(t, r).verdict == "slower"] for t, ranks in found.items()}
    figures = "; ".join(f"T={t}: {len(slower[t])} of {len(ranks)} slower" for t, ranks in found.items())
    return answer(all(2 * len(slower[t]) > len(ranks) for t, ranks in found.items()), f"Ranks above 1024: {figures}.")


FINDINGS = (
    Statement(
        "speedups of up to 9.46x for long sequences (4096) when using small middle dimensions",
        "measurement",
        _headline,
    ),
    Statement(
        "Smaller middle dimensions (64-256) consistently provide the best performance across all sequence lengths",
        "measurement",
        best_rank_within(64, 4096, 64, 256),
    ),
    Statement(
        "For sequence lengths 64-256: optimal middle dimension ranges from 64 to 256",
        "measurement",
        best_rank_within(64, 256, 64, 256),
    ),
    Statement(
        "For sequence lengths 512-4096: the optimal middle dimension is consistently 64",
        "measurement",
        best_rank_within(512, 4096, 64, 64),
    ),
    Statement(
        "The speedup advantage of SVD factorized matrix multiplication increases dramatically with sequence length",
        "law",
        _grows_dramatically,
    ),
    Statement("At seq_len=64: maximum speedup of 1.16x", "measurement", largest_speedup_is(64, 1.16, 1.16)),
    Statement("At seq_len=4096: maximum speedup of 9.46x", "measurement", largest_speedup_is(4096, 9.46, 9.46)),
    Statement(
        "Middle dimensions larger than 1024 generally result in worse performance than the baseline "
        "for all sequence lengths",
        "measurement",
        _large_ranks_lose,
    ),
)
