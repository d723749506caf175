"""What a linear chain does besides its two matmuls, and the activations in plain torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

Activation = Literal["relu", "silu", "gelu", "gelu_tanh"]
ACTIVATIONS: tuple[Activation, ...] = ("relu", "silu", "gelu", "gelu_tanh")


@dataclass(frozen=True, slots=True, eq=False)
class LinearEpilogue:
    """y = activation((x a^T + middle_bias) b + bias) + residual; None leaves a part out.

    Attributes:
        bias: (E,).
        middle_bias: (R,), of these factors' rank.
        residual: of the result's shape.
        activation: one of ACTIVATIONS.
    """

    bias: Tensor | None = None
    middle_bias: Tensor | None = None
    residual: Tensor | None = None
    activation: str | None = None


def activate_(values: Tensor, activation: str | None) -> Tensor:
    """Return `values` after the activation, in their own memory."""
    if activation is None:
        return values
    if activation == "relu":
        return values.relu_()
    if activation == "silu":
        return torch.nn.functional.silu(values, inplace=True)
    return torch.ops.aten.gelu_(values, approximate="tanh" if activation == "gelu_tanh" else "none")  # type: ignore[no-any-return]


def activation_gradient(grad: Tensor, values: Tensor, activation: str | None) -> Tensor:
    """Return grad times the activation's derivative at `values`; differentiable."""
    if activation is None:
        return grad
    if activation == "relu":
        return torch.ops.aten.threshold_backward(grad, values, 0)  # type: ignore[no-any-return]
    if activation == "silu":
        return _silu_gradient(grad, values)
    approximate = "tanh" if activation == "gelu_tanh" else "none"
    return torch.ops.aten.gelu_backward(grad, values, approximate=approximate)  # type: ignore[no-any-return]


def _silu_gradient(grad: Tensor, values: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return torch.ops.aten.silu_backward(grad, values)  # type: ignore[no-any-return]  # has no derivative
    gate = values.sigmoid()
    return grad * gate * (1 + values * (1 - gate))
