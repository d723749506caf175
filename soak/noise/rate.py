"""How often a verdict may be wrong: a count, what it says of the rate behind it, and whether that is enough."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.stats import beta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from narrows._stats import Verdict
    from soak._figure import Status

LIMIT = 5 / 1000
CONFIDENCE = 0.95
ENOUGH = 1000  # comparisons from which the count itself must keep the limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """`count` wrong verdicts of `tried`, with one-sided Clopper-Pearson bounds of the rate (exact, any rate).

    Attributes:
        kinds: how many rates are looked at together; the bounds hold for all of them at once (Bonferroni).
    """

    count: int
    tried: int
    kinds: int = 1

    @property
    def at_least(self) -> float:
        """The rate below which so many would be seen once in 20 times."""
        tail = (1 - CONFIDENCE) / self.kinds
        return float(beta.ppf(tail, self.count, self.tried - self.count + 1)) if self.count else 0.0

    @property
    def at_most(self) -> float:
        """The rate above which so few would be seen once in 20 times."""
        tail = (1 - CONFIDENCE) / self.kinds
        return float(beta.ppf(1 - tail, self.count + 1, self.tried - self.count)) if self.count < self.tried else 1.0

    @property
    def status(self) -> Status:
        """Ok: the rate is within the limit beyond doubt. Failed: it is not, or the count of 1,000 or more is over it.

        In between too few were tried to tell: "not shown".
        """
        is_over = self.tried >= ENOUGH and self.count > LIMIT * self.tried
        if is_over or self.at_least > LIMIT:
            return "failed"
        return "ok" if self.at_most <= LIMIT else "not shown"

    def __str__(self) -> str:
        if not self.tried:
            return "no comparison has a verdict"
        told = f"{self.count:,} of {self.tried:,}; the rate is at most {1000 * self.at_most:.2f} in 1,000"
        return told if self.status != "not shown" else f"{told}: too few to show less"


def rate_of(verdicts: Iterable[Verdict], wrong: Verdict = "faster", *, kinds: int = 1) -> Rate:
    """Return how often one verdict was given; comparisons without any (under 8 rounds) are not counted."""
    counts = Counter(verdicts)
    return Rate(count=counts[wrong], tried=counts.total() - counts["unknown"], kinds=kinds)
