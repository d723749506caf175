"""Where the origin contradicts itself, and what the data says: the verdict is that of the first half."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._stats import power_law
from narrows.reporting._statement import Statement, answer
from narrows.reporting._statements_facts import NotCovered, slope_text
from narrows.reporting._statements_lengths import ORIGIN_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from narrows.reporting._statement import Answer
    from narrows.reporting._statements_facts import Facts


def _one_rank_or_other(tokens: int, first: int, second: int) -> Callable[[Facts], Answer]:
    """Return a judge of two ranks that are both called best at one length."""

    def judge(facts: Facts) -> Answer:
        facts.need_ranks((tokens,), first, second)
        figures = f"{facts.bests((tokens,))} {facts.cost(tokens, first)}; {facts.cost(tokens, second)}."
        best = facts.ties(tokens)
        if first in best and second in best:
            return "cannot tell", f"Ranks {first} and {second} cannot be told apart in time: {figures}"
        agrees = "the first half" if first in best else "the second half" if second in best else "neither half"
        return answer(first in best, f"The data agrees with {agrees}: {figures}")

    return judge


def _always_or_mostly(facts: Facts) -> Answer:
    lengths = facts.lengths(512, 4096)
    facts.need_choice(lengths, 64, 64)
    count = sum(64 in facts.ties(t) for t in lengths)
    return answer(count == len(lengths), f"Rank 64 is among the fastest at {count} of {len(lengths)} lengths from 512.")


def _superlinear_or_table(facts: Facts) -> Answer:
    published = power_law(list(ORIGIN_TABLE), [speedup for _, speedup in ORIGIN_TABLE.values()])
    measured = facts.slope([facts.top(t).value for t in facts.tokens])
    if published is None:
        raise NotCovered("The origin's table is too short.")
    figures = f"Its own table grows with {slope_text(published)}, the data with {slope_text(measured)}."
    if measured.low <= 1 < measured.high:
        return "cannot tell", figures
    return answer(measured.low > 1, figures)


def _all_lengths_or_can(facts: Facts) -> Answer:
    found = {(t, r): facts.speedup(t, r) for t, r in facts.thin if r > 1024}
    if not found:
        raise NotCovered("Needs ranks above 1024.")
    slower = sum(ratio.verdict == "slower" for ratio in found.values())
    return answer(
        slower == len(found),
        f"{slower} of {len(found)} points with ranks above 1024 are slower than dense beyond doubt.",
    )


def _formula_or_table(facts: Facts) -> Answer:
    facts.need_ranks((64,), 64)
    formula = facts.dense[64].flops / facts.thin[64, 64].row.flops
    ratio = facts.speedup(64, 64)
    # The half-way point between 1.16x and the formula on a logarithmic scale.
    middle = (formula * ORIGIN_TABLE[64][1]) ** 0.5
    figures = f"The formulas save {formula:.1f} times the FLOPs; measured {facts.cost(64, 64)}."
    if ratio.low <= middle <= ratio.high:
        return "cannot tell", figures
    return answer(ratio.low > middle, figures)


CONTRADICTIONS = (
    Statement(
        '"For sequence lengths 512-4096: the optimal middle dimension is consistently 64" '
        'against its table: "| 512 | 128 | 2.97x |"',
        "contradiction",
        _one_rank_or_other(512, 64, 128),
    ),
    Statement(
        '"For sequence lengths 512-4096: the optimal middle dimension is consistently 64" '
        'against "middle_dim=64 being optimal for most sequence lengths over 512"',
        "contradiction",
        _always_or_mostly,
    ),
    Statement(
        '"For seq_len ≥ 256: Use middle_dim = 64" against its table: "| 256 | 256 | 1.99x |"',
        "contradiction",
        _one_rank_or_other(256, 64, 256),
    ),
    Statement(
        '"For seq_len ≥ 256: Use middle_dim = 64" against its table: "| 512 | 128 | 2.97x |"',
        "contradiction",
        _one_rank_or_other(512, 64, 128),
    ),
    Statement(
        '"For seq_len < 256: Use middle_dim = 256" against its table: "| 64 | 64 | 1.16x |"',
        "contradiction",
        _one_rank_or_other(64, 256, 64),
    ),
    Statement(
        '"a middle dimension of 64 provides the best overall performance" against '
        '"For seq_len < 256: Use middle_dim = 256" (at 128)',
        "contradiction",
        _one_rank_or_other(128, 64, 256),
    ),
    Statement(
        '"The benefits increase superlinearly with sequence length" against its table: 1.16x at 64 to 9.46x at 4096',
        "contradiction",
        _superlinear_or_table,
    ),
    Statement(
        '"Middle dimensions larger than 1024 generally result in worse performance ... for all sequence lengths" '
        'against "Very large middle dimensions (4096) can actually perform worse"',
        "contradiction",
        _all_lengths_or_can,
    ),
    Statement(
        '"the computational advantage of SVD becomes significant" (its formulas, rank 64 at 64) '
        'against its table: "| 64 | 64 | 1.16x |"',
        "contradiction",
        _formula_or_table,
    ),
)
