"""The origin's complexity formulas and its explanations: caches, bandwidth, what they would explain."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from narrows._stats import power_law
from narrows.reporting._statement import Statement, answer
from narrows.reporting._statements_facts import FEATURES, NotCovered, slope_text
from narrows.reporting._statements_judging import dense_times, growth

if TYPE_CHECKING:
    from narrows._stats import Slope
    from narrows._values import Row
    from narrows.reporting._statement import Answer
    from narrows.reporting._statements_facts import Facts

STEEPER = 1.05  # an exponent of time against FLOPs above this is more than the formula's growth
MUCH_SMALLER = 16  # "middle_dim << model_dim": at most a sixteenth


def _dense_law(facts: Facts) -> Answer:
    flops = [facts.dense[t].flops for t in facts.tokens]
    return _grows_no_faster(power_law(flops, dense_times(facts)), "dense")


def _thin_law(facts: Facts) -> Answer:
    found = list(facts.thin.values())
    return _grows_no_faster(power_law([c.row.flops for c in found], [c.time_ns for c in found]), "thin")


def _grows_no_faster(slope: Slope | None, chain: str) -> Answer:
    """O(...) is an upper bound: time may grow slower than the formula, not faster."""
    if slope is None:
        raise NotCovered(f"Needs at least 3 {chain} rows for a law.")
    figures = f"Time of the {chain} chain against the formula's FLOPs: {slope_text(slope)}; 1 is the formula's growth."
    return answer(slope.low <= STEEPER, figures)


def _thin_wins_when_narrow(facts: Facts) -> Answer:
    narrow = {t: [r for r in facts.ranks(t) if r * MUCH_SMALLER <= FEATURES] for t in facts.tokens}
    if not all(narrow.values()):
        raise NotCovered(f"Needs ranks of at most {FEATURES // MUCH_SMALLER} at every length.")
    wins = all(facts.speedup(t, r).verdict == "faster" for t, ranks in narrow.items() for r in ranks)
    factor, figures = growth(facts)
    return answer(wins and factor > 1, f"Ranks up to {FEATURES // MUCH_SMALLER} are {_all(wins)} faster; {figures}.")


def _all(holds: bool) -> str:
    return "all" if holds else "not all"


def _attention(facts: Facts) -> Answer:
    last = facts.tokens[-1]
    if facts.top(last).verdict != "faster":
        return "refuted", f"Not even its matmuls are faster: {facts.tops((last,))}"
    raise NotCovered(f"No attention was measured, only its matmuls: {facts.tops((last,))}")


def _caches(facts: Facts) -> Answer:
    shares = [(rank, c.share) for (_, rank), c in facts.thin.items() if c.share is not None]
    slope = power_law([r for r, _ in shares], [s for _, s in shares])
    if slope is None:
        raise NotCovered("Needs limits for at least 3 thin rows.")
    figures = f"Share of the limit against rank: {slope_text(slope)}"
    if facts.part.report.machine.device == "cpu":
        raise NotCovered(f"The statement is about a GPU; this is a CPU. {figures}.")
    if slope.low <= 0 <= slope.high:
        return "cannot tell", f"{figures}: no trend beyond doubt."
    return answer(slope.high < 0, f"{figures}; below 0 smaller ranks come closer to what the hardware allows.")


def _does_not_scale(facts: Facts) -> Answer:
    if len(facts.tokens) < 3:
        raise NotCovered("Needs at least 3 lengths.")
    always = all(facts.best(a) < facts.best(b) for a, b in pairwise(facts.tokens))
    slope = facts.slope([facts.best(t) for t in facts.tokens])
    return answer(not always, f"Best rank against length: {slope_text(slope)}. {facts.bests(facts.tokens)}")


def _bytes_fall(facts: Facts) -> Answer:
    found = _byte_ratios(facts)
    figures = "; ".join(f"T={t}: {ratio:.2f} times fewer" for t, ratio in found.items())
    return answer(all(ratio > 1 for ratio in found.values()), f"Bytes moved at the best rank, by formula: {figures}.")


def _bytes_explain(facts: Facts) -> Answer:
    found = _byte_ratios(facts)
    slope = facts.slope(list(found.values()))
    first, last = facts.tokens[0], facts.tokens[-1]
    figures = (
        f"Bytes saved, by formula, go from {found[first]:.2f} times at T={first} to {found[last]:.2f} times at "
        f"T={last}: {slope_text(slope)}."
    )
    if slope.low <= 0 <= slope.high:
        return "cannot tell", figures
    return answer(slope.low > 0, figures)


def _byte_ratios(facts: Facts) -> dict[int, float]:
    return {t: _moved(facts.dense[t]) / _moved(facts.thin[t, facts.best(t)].row) for t in facts.tokens}


def _moved(row: Row) -> int:
    return row.bytes_read + row.bytes_written


THEORY = (
    Statement("Total: O(seq_len × 4096² + seq_len² × 4096)", "law", _dense_law),  # noqa: RUF001 (its own words)
    Statement(
        "Total: O(seq_len × 4096 × middle_dim + middle_dim × 4096 × seq_len + seq_len² × middle_dim)",  # noqa: RUF001
        "law",
        _thin_law,
    ),
    Statement(
        "When middle_dim << model_dim, the computational advantage of SVD becomes significant, "
        "especially for large sequence lengths.",
        "law",
        _thin_wins_when_narrow,
    ),
    Statement(
        "Using SVD factorized attention mechanisms with small middle dimensions can dramatically improve performance, "
        "especially for longer sequences.",
        "recommendation",
        _attention,
    ),
    Statement(
        "Smaller middle dimensions may better utilize GPU memory hierarchies and cache structures", "law", _caches
    ),
    Statement("the optimal middle dimension doesn't always scale with sequence length", "law", _does_not_scale),
    Statement(
        "The SVD approach likely reduces memory bandwidth requirements by processing smaller matrices",
        "measurement",
        _bytes_fall,
    ),
    Statement("which may explain the disproportionate benefits for larger sequence lengths", "law", _bytes_explain),
)
