"""Gradients of a projection p = x a^T, in differentiable torch operations: dx = dP a, da = dP^T x."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.ops._checks import broadcast

if TYPE_CHECKING:
    from torch import Tensor

Gradients = tuple["Tensor | None", ...]


def projection_gradients(grad: Tensor, x: Tensor, weight: Tensor, *, needs_x: bool, needs_weight: bool) -> Gradients:
    """Return the gradients of x and of the weight for x weight^T."""
    dx = (grad @ weight).sum_to_size(x.shape) if needs_x else None
    return dx, token_sum(grad, x, weight) if needs_weight else None


def token_sum(left: Tensor, right: Tensor, like: Tensor) -> Tensor:
    """Return left^T right summed over tokens and leading dimensions, of the shape of `like`."""
    if like.ndim == 2:
        return left.reshape(-1, left.shape[-1]).mT @ right.reshape(-1, right.shape[-1])
    return (left.mT @ right).sum_to_size(like.shape)


def projected_shape(x: Tensor, weight: Tensor) -> tuple[int, ...]:
    """Return the shape of x weight^T."""
    if weight.ndim == 2:
        return (*x.shape[:-1], weight.shape[-2])
    lead = broadcast(x.shape[:-2], weight.shape[:-2])
    return (*lead, x.shape[-2], weight.shape[-2])
