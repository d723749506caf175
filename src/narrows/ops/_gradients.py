"""Gradients of the chains, in differentiable torch operations, so that second derivatives work too.

With G the gradient of the result, P = x a^T and Q = y b^T:
    linear y = P b:             dP = G b^T;  db = P^T G
    bilinear s = scale P Q^T:   dP = scale G Q;  dQ = scale G^T P
    both projections:           dx = dP a;  da = dP^T x
P and Q are computed again: keeping them would need a second result of the operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from narrows.kernels import project
from narrows.ops._checks import broadcast

if TYPE_CHECKING:
    from torch import Tensor

Gradients = tuple["Tensor | None", ...]


def keep_linear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 (torch's signature)
    """Keep what `linear_gradients` reads."""
    x, a, b, _, _ = inputs
    ctx.save_for_backward(x, a, b)


def linear_gradients(ctx: Any, grad: Tensor) -> Gradients:
    """Return the gradients of (x, a, b, bias, impl)."""
    x, a, b = ctx.saved_tensors
    needs_x, needs_a, needs_b, needs_bias, _ = ctx.needs_input_grad
    dx = da = db = dbias = None
    if needs_x or needs_a:
        dx, da = _projection(grad @ b.mT, x, a, needs_x=needs_x, needs_weight=needs_a)
    if needs_b:
        db = _outer(project(x, a), grad, b)
    if needs_bias:
        dbias = grad.sum_to_size(b.shape[-1:])
    return dx, da, db, dbias, None


def keep_bilinear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 (torch's signature)
    """Keep what `bilinear_gradients` reads."""
    x, a, b, y, scale, mask, _ = inputs
    ctx.save_for_backward(x, a, b, y, mask)
    ctx.scale = scale


def bilinear_gradients(ctx: Any, grad: Tensor) -> Gradients:
    """Return the gradients of (x, a, b, y, scale, mask, impl)."""
    x, a, b, y, mask = ctx.saved_tensors
    needs_x, needs_a, needs_b, needs_y, _, needs_mask, _ = ctx.needs_input_grad
    if mask is not None and mask.dtype == torch.bool:
        grad = grad.masked_fill(~mask, 0)
    dmask = grad.sum_to_size(mask.shape) if needs_mask else None
    if ctx.scale is not None:
        grad = grad * ctx.scale
    other = x if y is None else y
    needs_other = needs_x if y is None else needs_y
    dx = da = d_other = db = None
    if needs_x or needs_a:
        dp = (grad @ project(other, b)).sum_to_size(_projected(x, a))
        dx, da = _projection(dp, x, a, needs_x=needs_x, needs_weight=needs_a)
    if needs_other or needs_b:
        dq = (grad.mT @ project(x, a)).sum_to_size(_projected(other, b))
        d_other, db = _projection(dq, other, b, needs_x=needs_other, needs_weight=needs_b)
    if y is not None:
        return dx, da, db, d_other, None, dmask, None
    both = dx + d_other if dx is not None and d_other is not None else None
    return both, da, db, None, None, dmask, None


def _projection(grad: Tensor, x: Tensor, weight: Tensor, *, needs_x: bool, needs_weight: bool) -> Gradients:
    """Return the gradients of x and of the weight for x weight^T."""
    dx = (grad @ weight).sum_to_size(x.shape) if needs_x else None
    return dx, _outer(grad, x, weight) if needs_weight else None


def _outer(left: Tensor, right: Tensor, like: Tensor) -> Tensor:
    """Return left^T right summed over tokens and leading dimensions, of the shape of `like`."""
    if like.ndim == 2:
        return left.reshape(-1, left.shape[-1]).mT @ right.reshape(-1, right.shape[-1])
    return (left.mT @ right).sum_to_size(like.shape)


def _projected(x: Tensor, weight: Tensor) -> tuple[int, ...]:
    """Return the shape of x weight^T."""
    if weight.ndim == 2:
        return (*x.shape[:-1], weight.shape[-2])
    lead = broadcast(x.shape[:-2], weight.shape[:-2])
    return (*lead, x.shape[-2], weight.shape[-2])
