"""What is known of a factorisation: how it was made and the error of every rank."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from narrows.errors import RankError

Method = Literal["exact", "randomized", "product", "given", "one-sided", "two-sided", "anchored", "joint"]


@dataclass(frozen=True)
class Certificate:
    """The error of every rank, from the spectrum; what was measured beside it.

    Attributes:
        method: "exact", "randomized", "product", or "given" (factors made elsewhere); "one-sided", "two-sided",
            "anchored" and "joint" speak of a norm weighted by data, of which all figures below are.
        singular_values: sigma_1 >= sigma_2 >= ..., of the kept part; over heads, one tuple a head.
        norm: ||W||_F (over all heads).
        residual: measured ||W - W_R||_F / ||W||_F at the full kept rank R.
        tail: sqrt(sum of sigma_i^2 beyond the kept ones) / ||W||_F when it is known or bounded.
        distance: measured residual / optimal residual, where the method is not exact
            (1.0 is optimal); None when it was not measured.
        seconds: time the factorisation took.
    """

    method: Method
    singular_values: tuple[tuple[float, ...], ...]
    norm: float
    residual: float
    tail: float = 0.0
    distance: float | None = None
    seconds: float = 0.0

    @property
    def rank(self) -> int:
        """R, the largest rank this certificate speaks of."""
        return len(self.singular_values[0])

    @cached_property
    def _errors(self) -> tuple[float, ...]:
        sigma_HR = np.asarray(self.singular_values, dtype=np.float64)
        # Divided first: squares of float64 values beyond 1e154 overflow, below 1e-154 vanish.
        power_R = ((sigma_HR / (self.norm or 1.0)) ** 2).sum(axis=0)
        # Smallest first: ||W||^2 minus the head would cancel.
        tails = np.concatenate([[0.0], np.cumsum(power_R[::-1])])[::-1]
        return tuple(float(e) for e in np.sqrt(tails + self.tail**2))

    def error(self, rank: int) -> float:
        """Return ||W - W_rank||_F / ||W||_F, relative (0.0 for a zero weight).

        Args:
            rank: 0..R; 0 is the error of dropping the weight altogether.
        """
        if not 0 <= rank <= self.rank:
            raise RankError(f"rank={rank} is outside 0..{self.rank}, the ranks this certificate knows.")
        return self._errors[rank]

    def smallest_rank(self, error: float) -> int | None:
        """Return the smallest rank >= 1 whose error is at most `error`; None if there is none."""
        for rank in range(1, self.rank + 1):
            if self._errors[rank] <= error:
                return rank
        return None
