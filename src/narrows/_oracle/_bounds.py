"""T1: the float64 value of a thin chain and how far rounding can take each element from it.

The operands as given (already rounded to their dtype) are exact data here: what truncation or
quantisation cost is another account. Leading dimensions broadcast as in torch.matmul.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from narrows._oracle._arithmetic import Arithmetic
from narrows.errors import ShapeError


@dataclass(frozen=True, eq=False)
class Reference:
    """Attributes:
    value: what exact arithmetic gives, float64.
    bound: the largest |result - value| that rounding allows, elementwise, float64.
    """

    value: torch.Tensor
    bound: torch.Tensor


def worst(result: torch.Tensor, reference: Reference) -> float:
    """Return the largest |result - value| / bound: above 1 the result is wrong.

    NaN or Inf in the result counts as inf; a result of no elements gives 0.

    Raises:
        ShapeError: result and reference differ in shape.
    """
    if result.shape != reference.value.shape:
        raise ShapeError(f"result {tuple(result.shape)} must have the shape {tuple(reference.value.shape)}.")
    if result.numel() == 0:
        return 0.0
    error = (result.detach().to(torch.float64) - reference.value.to(result.device)).abs()
    ratio = torch.where(error == 0, 0.0, error / reference.bound.to(result.device))
    return float(torch.where(ratio.isnan(), math.inf, ratio).max())


class _Projection:
    """x a^T for every rank at once: columns are ranks, so a prefix of columns is a smaller rank."""

    def __init__(self, x_TD: torch.Tensor, a_RD: torch.Tensor, arithmetic: Arithmetic) -> None:
        x, a = x_TD.detach().to(torch.float64), a_RD.detach().to(torch.float64)
        self.value = x @ a.mT
        self.error = arithmetic.projection_error(self.value, x.abs() @ a.abs().mT, x.shape[-1])

    def at(self, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return value, error, and the largest magnitude the computed value can have."""
        value, error = self.value[..., :rank], self.error[..., :rank]
        return value, error, value.abs() + error


class BilinearOracle:
    """Reference and bound of s_TU = (x a^T)(y b^T)^T at any rank; both projections are made once.

    With E_P = g_D |x||a|^T and its rounding to the middle dtype (E_Q alike) and M = |P| + E_P:
    E = E_P |Q|^T + M_P E_Q^T + g_R M_P M_Q^T, bound = E + u (|S| + E) + floor.
    """

    def __init__(
        self,
        x_TD: torch.Tensor,
        a_RD: torch.Tensor,
        b_RE: torch.Tensor,
        y_UE: torch.Tensor,
        *,
        dtype: torch.dtype | None = None,
        middle: torch.dtype | None = None,
    ) -> None:
        """Project both sides.

        Args:
            x_TD: (..., T, D); rows may be a sample: the oracle then speaks of those rows.
            a_RD: (..., R, D).
            b_RE: (..., R, E).
            y_UE: (..., U, E).
            dtype: of the chain; default x's.
            middle: dtype of the projections; default `dtype`.
        """
        self.rank = a_RD.shape[-2]
        self._arithmetic = Arithmetic.of(dtype or x_TD.dtype, middle=middle, device=x_TD.device)
        self._x = _Projection(x_TD, a_RD, self._arithmetic)
        self._y = _Projection(y_UE, b_RE, self._arithmetic)

    def at(self, rank: int) -> Reference:
        """Return value and bound at a rank, 1..R."""
        p, p_error, p_most = self._x.at(rank)
        q, q_error, q_most = self._y.at(rank)
        value = p @ q.mT
        error = p_error @ q.abs().mT + p_most @ q_error.mT + self._arithmetic.gamma(rank) * (p_most @ q_most.mT)
        return Reference(value, self._arithmetic.result_error(value, error, rank))


class LinearOracle:
    """Reference and bound of y_TE = (x a^T) b + bias at any rank; the projection is made once.

    E = E_P |b| + g_(R+1) ((|P| + E_P) |b| + |bias|), bound = E + u (|Y| + E) + floor.
    """

    def __init__(
        self,
        x_TD: torch.Tensor,
        a_RD: torch.Tensor,
        b_RE: torch.Tensor,
        bias_E: torch.Tensor | None = None,
        *,
        dtype: torch.dtype | None = None,
        middle: torch.dtype | None = None,
    ) -> None:
        """Project x.

        Args:
            x_TD: (..., T, D); rows may be a sample.
            a_RD: (..., R, D).
            b_RE: (..., R, E).
            bias_E: (E,), or anything that broadcasts against the result.
            dtype: of the chain; default x's.
            middle: dtype of the projection; default `dtype`.
        """
        self.rank = a_RD.shape[-2]
        self._arithmetic = Arithmetic.of(dtype or x_TD.dtype, middle=middle, device=x_TD.device)
        self._x = _Projection(x_TD, a_RD, self._arithmetic)
        self._b = b_RE.detach().to(torch.float64)
        self._bias = self._b.new_zeros(()) if bias_E is None else bias_E.detach().to(torch.float64)

    def at(self, rank: int) -> Reference:
        """Return value and bound at a rank, 1..R."""
        p, p_error, p_most = self._x.at(rank)
        b = self._b[..., :rank, :]
        value = p @ b + self._bias
        error = p_error @ b.abs() + self._arithmetic.gamma(rank + 1) * (p_most @ b.abs() + self._bias.abs())
        return Reference(value, self._arithmetic.result_error(value, error, rank))


def bilinear_bound(
    x_TD: torch.Tensor,
    a_RD: torch.Tensor,
    b_RE: torch.Tensor,
    y_UE: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    middle: torch.dtype | None = None,
) -> Reference:
    """Return value and bound of (x a^T)(y b^T)^T at the full rank; see `BilinearOracle`."""
    return BilinearOracle(x_TD, a_RD, b_RE, y_UE, dtype=dtype, middle=middle).at(a_RD.shape[-2])


def linear_bound(
    x_TD: torch.Tensor,
    a_RD: torch.Tensor,
    b_RE: torch.Tensor,
    bias_E: torch.Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
    middle: torch.dtype | None = None,
) -> Reference:
    """Return value and bound of (x a^T) b + bias at the full rank; see `LinearOracle`."""
    return LinearOracle(x_TD, a_RD, b_RE, bias_E, dtype=dtype, middle=middle).at(a_RD.shape[-2])
