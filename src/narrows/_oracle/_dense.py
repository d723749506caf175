"""T1 for the dense chains: x W^T, and both associations of x W^T y^T."""

from __future__ import annotations

from typing import Literal

import torch

from narrows._oracle._arithmetic import Arithmetic
from narrows._oracle._bounds import LinearOracle, Reference


def dense_linear_bound(
    x_TD: torch.Tensor, weight_ED: torch.Tensor, bias_E: torch.Tensor | None = None, *, dtype: torch.dtype | None = None
) -> Reference:
    """Return value and bound of x W^T + bias.

    Args:
        x_TD: (..., T, D); rows may be a sample.
        weight_ED: (..., E, D).
        bias_E: (E,).
        dtype: of the chain; default x's.
    """
    arithmetic = Arithmetic.of(dtype or x_TD.dtype, device=x_TD.device)
    x, w = x_TD.detach().to(torch.float64), weight_ED.detach().to(torch.float64)
    bias = (
        torch.zeros((), dtype=torch.float64, device=x.device) if bias_E is None else bias_E.detach().to(torch.float64)
    )
    D = x.shape[-1]
    value = x @ w.mT + bias
    error = arithmetic.gamma(D + 1) * (x.abs() @ w.abs().mT + bias.abs())
    return Reference(value, arithmetic.result_error(value, error, D))


def dense_bilinear_bound(
    x_TD: torch.Tensor,
    weight_ED: torch.Tensor,
    y_UE: torch.Tensor,
    *,
    association: Literal["left", "right"] = "left",
    dtype: torch.dtype | None = None,
    middle: torch.dtype | None = None,
) -> Reference:
    """Return value and bound of the dense chain x W^T y^T.

    Args:
        x_TD: (..., T, D); rows may be a sample (cheap for "left").
        weight_ED: (..., E, D).
        y_UE: (..., U, E); rows may be a sample (cheap for "right").
        association: "left" is (x W^T) y^T, "right" is x (y W)^T.
        dtype: of the chain; default x's.
        middle: dtype of the first product; default `dtype`.
    """
    if association == "left":
        # (x W^T) y^T is the linear chain (x a^T) b with a = W and b = y^T.
        oracle = LinearOracle(x_TD, weight_ED, y_UE.mT, dtype=dtype, middle=middle)
        return oracle.at(weight_ED.shape[-2])
    mirrored = LinearOracle(y_UE, weight_ED.mT, x_TD.mT, dtype=dtype, middle=middle).at(weight_ED.shape[-1])
    return Reference(mirrored.value.mT, mirrored.bound.mT)
