"""What a data-aware decomposition gives: every rank of one weight, its damage, its factors and its pivot form.

Letters: D input features, E output features, K = min(D, E), R rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from narrows._values import Certificate, Factors
from narrows.decompose._limits import resolve_limits
from narrows.decompose._pivot import pivot
from narrows.errors import RankError

if TYPE_CHECKING:
    import numpy.typing as npt

    from narrows._values import Method, PivotFactors
    from narrows.decompose._weighted_moment import Metric


@dataclass(frozen=True, eq=False)
class Weighted:
    """All ranks of one weight, ordered by what they matter in a norm weighted by data.

    Attributes:
        method: "one-sided", "two-sided" or "anchored".
        a: (K, D) float64; b: (K, E) float64; b^T a is the weight, and the first R rows of both are
            the best factors of rank R in the weighted norm. Rows of a and b have equal norms.
        sigma: (K,) float64, falling: the weighted spectrum.
        norm: the weight's own weighted norm.
        metric: the weighted norm.
        dtype: of the weight; that of factors where no other is asked for.
        floored: eigenvalues of a singular moment that were raised to be invertible.
        constant: damage that no rank can mend (see `anchored`); None: not known.
        seconds: time the decomposition took.
    """

    method: Method
    a: torch.Tensor
    b: torch.Tensor
    sigma: npt.NDArray[np.float64]
    norm: float
    metric: Metric
    dtype: torch.dtype
    floored: int
    constant: float | None
    seconds: float

    @property
    def rank(self) -> int:
        """K, the largest rank, which is exact."""
        return len(self.sigma)

    @property
    def is_in_nats(self) -> bool:
        """Return True where damage is in nats a token (with gradients), False for the outputs' squared error."""
        return self.metric.is_in_nats

    @cached_property
    def damages(self) -> npt.NDArray[np.float64]:
        """Return the damage of every rank 0..K, (K + 1,), falling to 0.0.

        With gradients: the expected growth of the loss in nats a token, half the sum of the discarded
        sigma^2. Without: E||y - y_R||^2, the sum itself: in units of the output, which two
        layers do not share (of a stack: shares of each layer's output, added up). Both with shrunk moments.
        """
        squares = self.sigma**2 * (0.5 if self.is_in_nats else 1.0)
        # Smallest first: a difference from the whole sum would cancel.
        return np.concatenate([[0.0], np.cumsum(squares[::-1])])[::-1]

    def damage(self, rank: int) -> float:
        """Return the damage of one rank, 0..K (0: the layer without its weight); see `damages`.

        Raises:
            RankError: outside 0..K.
        """
        if not 0 <= rank <= self.rank:
            raise RankError(f"rank={rank} is outside 0..{self.rank}, the ranks of this weight.")
        return float(self.damages[rank])

    @torch.no_grad()
    def factors(self, rank: int, dtype: torch.dtype | None = None) -> Factors:
        """Return the best factors of a rank in the weighted norm, rounded once.

        Their certificate speaks of the weighted norm; its residual is measured on the factors as
        they are returned.

        Args:
            rank: 1..K.
            dtype: default the weight's.

        Raises:
            RankError: outside 1..K.
        """
        a, b = self._prefix(rank)
        stored = Factors(a.to(dtype or self.dtype, copy=True), b.to(dtype or self.dtype, copy=True))
        return Factors(stored.a, stored.b, self._certificate(stored))

    @torch.no_grad()
    def pivot(self, rank: int, dtype: torch.dtype | None = None) -> PivotFactors:
        """Return the same weight of rank R as R of its rows and what makes the others of them; see `pivot`.

        Args:
            rank: 1..K.
            dtype: default the weight's.

        Raises:
            RankError: outside 1..K.
        """
        return pivot(Factors(*self._prefix(rank)), dtype=dtype or self.dtype)

    def _prefix(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        sizes = {"D": self.a.shape[-1], "E": self.b.shape[-1]}
        rank = resolve_limits(rank, None, sizes=sizes, bytes_per_rank=0).largest
        return self.a[:rank], self.b[:rank]

    def _certificate(self, stored: Factors) -> Certificate:
        difference = self.b.mT @ self.a - stored.b.to(torch.float64).mT @ stored.a.to(torch.float64)
        residual = self.metric.norm(difference) / (self.norm or 1.0)
        values = tuple(self.sigma.tolist())
        return Certificate(self.method, (values,), self.norm, residual, seconds=self.seconds)
