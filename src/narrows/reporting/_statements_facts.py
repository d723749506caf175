"""What the origin's statements are judged on: its own two chains, by length and rank."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from narrows._stats import TIE, against, power_law
from narrows.reporting._part import parts
from narrows.reporting._text import error_text, interval_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows._stats import Comparison, Ratio, Slope
    from narrows._values import Report, Row
    from narrows.reporting._part import Part

FEATURES = 4096
ORIGIN_VARIANT, ORIGIN_DENSE = "three", "left"
FEWEST = 3  # rounds: fewer say nothing of a spread, and every claim would lie within the interval


class NotCovered(Exception):  # noqa: N818 (an answer, not a fault: the verdict is "cannot tell")
    """The data does not cover what a statement speaks of; the text says what is missing."""


@dataclass(frozen=True)
class Facts:
    """One mode and cache state of a report, seen as the origin saw it.

    Attributes:
        thin: (tokens, rank) -> the origin's chain of three matmuls where it was measured, else
            the fastest implementation.
        dense: tokens -> the dense row that it is held against.
    """

    part: Part
    thin: dict[tuple[int, int], Comparison]
    dense: dict[int, Row]
    _ties: dict[int, tuple[int, ...]] = field(default_factory=dict, compare=False)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Measured lengths, ascending."""
        return tuple(sorted(self.dense))

    def lengths(self, low: int, high: int) -> tuple[int, ...]:
        """Return the measured lengths of low..high; both ends must be among them."""
        for end in (low, high):
            self.ranks(end)
        return tuple(tokens for tokens in self.tokens if low <= tokens <= high)

    def ranks(self, tokens: int) -> tuple[int, ...]:
        """Return the ranks measured at a length."""
        found = tuple(sorted(rank for at, rank in self.thin if at == tokens))
        if not found:
            measured = ", ".join(map(str, self.tokens))
            raise NotCovered(f"Needs T={tokens} with at least {FEWEST} rounds; measured lengths: {measured}.")
        return found

    def need_ranks(self, tokens: Sequence[int], *ranks: int) -> None:
        """Require that these ranks were measured at these lengths."""
        for length in tokens:
            missing = [rank for rank in ranks if rank not in self.ranks(length)]
            if missing:
                raise NotCovered(f"Needs rank {', '.join(map(str, missing))} at T={length}; it was not measured.")

    def need_choice(self, tokens: Sequence[int], low: int, high: int) -> None:
        """Require that ranks inside and outside of low..high were measured: else nothing is best among them."""
        for length in tokens:
            inside = sum(low <= rank <= high for rank in self.ranks(length))
            if inside in {0, len(self.ranks(length))}:
                raise NotCovered(
                    f"Needs ranks inside and outside of {low}..{high} at T={length}; "
                    f"measured: {', '.join(map(str, self.ranks(length)))}."
                )

    def speedup(self, tokens: int, rank: int) -> Ratio:
        """Return the speedup over the origin's dense chain."""
        self.need_ranks((tokens,), rank)
        found = self.thin[tokens, rank]
        return found.origin_speedup or found.speedup

    def best(self, tokens: int) -> int:
        """Return the fastest rank at a length (smallest median)."""
        return min(self.ranks(tokens), key=lambda rank: self.thin[tokens, rank].time_ns)

    def ties(self, tokens: int) -> tuple[int, ...]:
        """Return every rank that cannot be told apart in time from the fastest one, that one included."""
        if tokens not in self._ties:
            fastest = self.best(tokens)
            self._ties[tokens] = tuple(r for r in self.ranks(tokens) if r == fastest or self.is_tie(tokens, r, fastest))
        return self._ties[tokens]

    def is_tie(self, tokens: int, one: int, other: int) -> bool:
        """Return whether the times of two ranks cannot be told apart, paired by round."""
        ratio = against(self.thin[tokens, one].row, self.thin[tokens, other].row)
        return ratio is not None and ratio.verdict == "tie"

    def top(self, tokens: int) -> Ratio:
        """Return the largest speedup at a length."""
        return self.speedup(tokens, self.best(tokens))

    def cost(self, tokens: int, rank: int) -> str:
        """Return a speedup with its interval and the error that pays for it."""
        error = self.part.error(self.part.weights[0], tokens, rank)
        paid = "error not known" if error is None else f"error {error_text(error)}"
        return f"T={tokens}: {interval_text(self.speedup(tokens, rank))} at rank {rank} ({paid})"

    def tops(self, tokens: Sequence[int]) -> str:
        """Return the best speedup of each length, with its error."""
        return "; ".join(self.cost(length, self.best(length)) for length in tokens) + "."

    def bests(self, tokens: Sequence[int]) -> str:
        """Return the fastest rank of each length with its ties."""
        return "; ".join(f"T={t}: rank {self._with_ties(t)}" for t in tokens) + "."

    def _with_ties(self, tokens: int) -> str:
        others = [str(rank) for rank in self.ties(tokens) if rank != self.best(tokens)]
        return f"{self.best(tokens)} (tied: {', '.join(others)})" if others else str(self.best(tokens))

    def slope(self, values: Sequence[float], tokens: Sequence[int] | None = None) -> Slope:
        """Return the fitted exponent of values against the lengths."""
        fitted = power_law(self.tokens if tokens is None else tokens, values)
        if fitted is None:
            raise NotCovered(f"Needs at least 3 lengths for a law; measured: {', '.join(map(str, self.tokens))}.")
        return fitted


def reaches(ratio: Ratio, low: float, high: float) -> bool:
    """Return whether a ratio lies in low..high within its interval and the 2 % of a tie."""
    return ratio.high * (1 + TIE) >= low and ratio.low <= high * (1 + TIE)


def slope_text(slope: Slope) -> str:
    """Return an exponent with its interval."""
    return f"exponent {slope.value:.2f} [{slope.low:.2f}, {slope.high:.2f}] over {slope.num_points} points"


def facts_of(report: Report) -> Facts:
    """Return the facts of a report.

    Raises:
        NotCovered: not the origin's chain at d = 4096, or nothing was measured.
    """
    experiment = report.experiment
    sizes = (experiment.in_features, experiment.out_features, experiment.heads, experiment.other_tokens)
    if experiment.kind != "bilinear" or sizes != (FEATURES, FEATURES, 1, None):
        raise NotCovered(
            f"The origin speaks of X W X^T with d = {FEATURES}; this report measured {experiment.kind} "
            f"{experiment.in_features}x{experiment.out_features} with {experiment.heads} head(s)."
        )
    found = parts(report)
    facts = _facts(found[0]) if found else None
    if facts is None or not facts.thin:
        raise NotCovered(f"The report holds no thin row with {FEWEST} rounds beside a dense one.")
    return facts


def _facts(part: Part) -> Facts:
    thin = dict(part.best)
    for candidate in (c for point in part.points for c in point.candidates):
        if candidate.variant == ORIGIN_VARIANT:
            thin[candidate.error.tokens, candidate.rank] = candidate.measured
    thin = {key: found for key, found in thin.items() if found.speedup.num_rounds >= FEWEST}
    measured = {tokens for tokens, _ in thin}
    dense = {p.tokens: _origin_dense(part, p.tokens, p.dense.row) for p in part.points if p.tokens in measured}
    return Facts(part, thin, dense)


def _origin_dense(part: Part, tokens: int, fastest: Row) -> Row:
    for row in part.report.rows:
        if (row.tokens, row.mode, row.cache, row.variant) == (tokens, part.mode, part.cache, ORIGIN_DENSE):
            return row if row.samples_ns else fastest
    return fastest
