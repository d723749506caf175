"""The float64 side of every check at one length: values and derived bounds of sampled rows.

Letters: K sampled rows of x, D, E features, U columns, R rank. Runs in the child process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._oracle import BilinearOracle, LinearOracle, Reference, dense_bilinear_bound, dense_linear_bound

if TYPE_CHECKING:
    import torch

    from narrows._values import Factors


class Gate:
    """References of one length, each projection made once: a smaller rank is a prefix.

    Args:
        rows: indices of the sampled rows.
        x: (T, D).
        other: (U, E) for bilinear (x itself for Y = X); None for linear.
    """

    def __init__(self, rows: torch.Tensor, x: torch.Tensor, other: torch.Tensor | None) -> None:
        self.rows = rows.to(x.device)
        self._x_KD = x[self.rows]
        self._other = other
        self._thin: dict[int, BilinearOracle | LinearOracle] = {}
        self._dense: dict[str, Reference] = {}

    def thin(self, factors: Factors, rank: int) -> Reference:
        """Return the reference of a prefix of these factors (kept for as long as the factors live)."""
        key = id(factors)
        if key not in self._thin:
            self._thin[key] = (
                LinearOracle(self._x_KD, factors.a, factors.b)
                if self._other is None
                else BilinearOracle(self._x_KD, factors.a, factors.b, self._other)
            )
        return self._thin[key].at(rank)

    def dense(self, weight: torch.Tensor, association: str) -> Reference:
        """Return the reference of the dense chain in one association."""
        if association not in self._dense:
            self._dense[association] = (
                dense_linear_bound(self._x_KD, weight)
                if self._other is None
                else dense_bilinear_bound(
                    self._x_KD, weight, self._other, association="right" if association == "right" else "left"
                )
            )
        return self._dense[association]
