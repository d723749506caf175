"""The activations and their gradients: exact values, and how steep they are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from soak.right.bounds import FUNCTION_ROUNDINGS, Chain, Known

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}
# The largest slopes: relu 1, silu 1.0999, gelu 1.1290, its tanh form 1.1291. The largest curvatures: silu 1/2,
# gelu 0.798, its tanh form 0.799. tests/soak/test_right.py looks for larger ones.
SLOPE = {"relu": 1.0, "silu": 1.1, "gelu": 1.13, "gelu_tanh": 1.13}
CURVATURE = {"silu": 0.51, "gelu": 0.8, "gelu_tanh": 0.81}
# Beyond it all of them are 0 or their argument to within float64, but for silu, which then has no cancellation.
FAR = 10.0


def activated(chain: Chain, known: Known, activation: str | None) -> Known:
    """Return the values after the activation."""
    if activation is None:
        return known
    return chain.through(known, FUNCTIONS[activation], SLOPE[activation])


def through_activation(chain: Chain, grad: Known, known: Known, activation: str | None) -> Known:
    """Return grad times the activation's derivative at these values, stored.

    The derivative's formula multiplies a difference from 1, off by a few units, by up to |z|^3.
    """
    if activation is None:
        return grad
    slope = derivative(known.value, activation)
    if activation == "relu":
        unsure = known.value.abs() <= known.error
        return chain.stored(grad.value * slope, torch.where(unsure, grad.most, grad.error * slope))
    inside = FUNCTION_ROUNDINGS * chain.unit * (1 + known.most.clamp(max=FAR) ** 3)
    error = CURVATURE[activation] * known.error + inside
    return chain.stored(grad.value * slope, grad.error * slope.abs() + grad.most * error)


def derivative(values: Tensor, activation: str) -> Tensor:
    """Return the activation's derivative, by autograd in float64."""
    with torch.enable_grad():
        leaf = values.detach().requires_grad_()
        (slope,) = torch.autograd.grad(FUNCTIONS[activation](leaf).sum(), leaf)
    return slope
