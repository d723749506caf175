"""The origin's table and what it says of short (64-256), medium (512-1024) and long (2048-4096) sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.reporting._statement import Statement, answer
from narrows.reporting._statements_facts import NotCovered, slope_text
from narrows.reporting._statements_judging import (
    best_rank_within,
    largest_speedup_is,
    largest_speedups_are,
    mean,
    sensitivity,
    table_row,
)

if TYPE_CHECKING:
    from narrows.reporting._statement import Answer
    from narrows.reporting._statements_facts import Facts

# Tokens -> (best rank, speedup), as the origin's table has them.
ORIGIN_TABLE = {
    64: (64, 1.16),
    128: (256, 1.27),
    256: (256, 1.99),
    512: (128, 2.97),
    1024: (64, 6.07),
    2048: (64, 7.11),
    4096: (64, 9.46),
}
SMALL = 1.5  # the most that "small improvements" can mean: half of the ~2x that the origin calls substantial
SAME = 0.02  # spreads closer than this are not told apart, as for times
EXTREME = 10.0  # the least FLOP ratio that "extremely significant" can mean


def _relatively_larger_when_short(facts: Facts) -> Answer:
    slope = facts.slope([facts.best(t) / t for t in facts.tokens])
    figures = f"Best rank / length: {slope_text(slope)}. Fastest ranks: {facts.bests(facts.tokens)}"
    if slope.low < 0 < slope.high:
        return "cannot tell", figures
    return answer(slope.high < 0, figures)


def _small_improvements(facts: Facts) -> Answer:
    ratios = [facts.speedup(64, rank) for rank in facts.ranks(64)]
    improved = any(ratio.verdict == "faster" for ratio in ratios)
    small = all(ratio.low < SMALL for ratio in ratios)
    count = sum(ratio.verdict == "faster" for ratio in ratios)
    figures = f"Best: {facts.cost(64, facts.best(64))}; {count} of {len(ratios)} ranks are faster than dense at T=64."
    return answer(improved and small, figures)


def _shifts_downward(facts: Facts) -> Answer:
    short, medium = facts.lengths(64, 256), facts.lengths(512, 1024)
    facts.need_choice(medium, 64, 128)
    within = all({64, 128} & set(facts.ties(t)) for t in medium)
    lower = max(facts.best(t) for t in medium) < max(facts.best(t) for t in short)
    slope = facts.slope([facts.best(t) for t in (*short, *medium)], (*short, *medium))
    return answer(
        within and lower,
        f"Fastest ranks: {facts.bests((*short, *medium))[:-1]}; best rank against length: {slope_text(slope)}.",
    )


def _more_sensitive(facts: Facts) -> Answer:
    short, medium = facts.lengths(64, 256), facts.lengths(512, 1024)
    at_short, at_medium = (mean([sensitivity(facts, t) for t in tokens]) for tokens in (short, medium))
    figures = f"Spread of log2 time over ranks: {at_short:.3f} at short lengths, {at_medium:.3f} at medium ones."
    if abs(at_medium / at_short - 1) <= SAME:
        return "cannot tell", figures
    return answer(at_medium > at_short, figures)


def _impacts_applications(facts: Facts) -> Answer:
    tokens = facts.lengths(512, 1024)
    if any(facts.top(t).verdict != "faster" for t in tokens):
        return "refuted", f"No speedup beyond doubt to pass on: {facts.tops(tokens)}"
    raise NotCovered(f"No application was measured; the matmuls alone: {facts.tops(tokens)}")


def _rank_4096_can_lose(facts: Facts) -> Answer:
    tokens = facts.lengths(2048, 4096)
    facts.need_ranks(tokens, 4096)
    slower = any(facts.speedup(t, 4096).verdict == "slower" for t in tokens)
    return answer(slower, "; ".join(facts.cost(t, 4096) for t in tokens) + ".")


def _savings_extreme(facts: Facts) -> Answer:
    tokens = facts.lengths(2048, 4096)
    found = {t: facts.dense[t].flops / facts.thin[t, facts.best(t)].row.flops for t in tokens}
    figures = "; ".join(
        f"T={t}: {ratio:.1f} times fewer FLOPs by formula, measured {facts.cost(t, facts.best(t))}"
        for t, ratio in found.items()
    )
    return answer(all(ratio >= EXTREME for ratio in found.values()), f"{figures}.")


BY_LENGTH = (
    *(
        Statement(f"| {tokens} | {rank} | {speedup:.2f}x |", "measurement", table_row(tokens, rank, speedup))
        for tokens, (rank, speedup) in ORIGIN_TABLE.items()
    ),
    Statement(
        "For short sequences, the performance benefit of SVD factorization is modest (1.16x to 1.99x)",
        "measurement",
        largest_speedups_are(64, 256, 1.16, 1.99),
    ),
    Statement(
        "The optimal middle dimension tends to be larger relative to the sequence length",
        "law",
        _relatively_larger_when_short,
    ),
    Statement(
        "At seq_len=64, only small improvements are seen with any middle dimension", "measurement", _small_improvements
    ),
    Statement(
        "At seq_len=256, we begin to see more substantial benefits (~2x speedup)",
        "measurement",
        largest_speedup_is(256, 1.8, 2.2),
    ),
    Statement(
        "Significant performance improvements become evident (2.97x to 6.07x)",
        "measurement",
        largest_speedups_are(512, 1024, 2.97, 6.07),
    ),
    Statement("The optimal middle dimension shifts downward to 64-128", "law", _shifts_downward),
    Statement("Performance becomes more sensitive to middle dimension selection", "law", _more_sensitive),
    Statement(
        "Speedups are substantial enough to significantly impact application performance",
        "measurement",
        _impacts_applications,
    ),
    Statement(
        "Dramatic performance improvements (7.11x to 9.46x)",
        "measurement",
        largest_speedups_are(2048, 4096, 7.11, 9.46),
    ),
    Statement("The optimal middle dimension stabilizes at 64", "measurement", best_rank_within(2048, 4096, 64, 64)),
    Statement(
        "Very large middle dimensions (4096) can actually perform worse than the No SVD baseline",
        "measurement",
        _rank_4096_can_lose,
    ),
    Statement(
        "The computational savings from SVD factorization become extremely significant",
        "measurement",
        _savings_extreme,
    ),
)
