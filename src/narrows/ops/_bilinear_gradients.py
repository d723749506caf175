"""Gradients of bilinear scores, in differentiable torch operations, so that second derivatives work too.

With G the gradient of the result, P = x a^T, Q = y b^T and z = scale P Q^T:
    s = softcap tanh(z / softcap) + mask:   dz = G (1 - tanh(z / softcap)^2), G where the mask lets it through
    z:                                      dP = scale dz Q;  dQ = scale dz^T P
    both projections:                       dx = dP a;  da = dP^T x
P and Q (and z, for a softcap) are computed again: keeping them would need further results of the operation.

Letters: T tokens, U other tokens, R rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from narrows.kernels import project, score_gradients
from narrows.ops._gradients import Gradients, projected_shape, projection_gradients

if TYPE_CHECKING:
    from torch import Tensor


def keep_bilinear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 (torch's signature)
    """Keep what `bilinear_gradients` reads."""
    x, a, b, y, scale, softcap, mask, causal, _ = inputs
    ctx.save_for_backward(x, a, b, y, mask)
    ctx.scale, ctx.softcap, ctx.causal = scale, softcap, causal


def bilinear_gradients(ctx: Any, grad: Tensor) -> Gradients:
    """Return the gradients of (x, a, b, y, scale, softcap, mask, causal, impl)."""
    x, a, b, y, mask = ctx.saved_tensors
    needs_x, needs_a, needs_b, needs_y, _, _, needs_mask, *_ = ctx.needs_input_grad
    other = x if y is None else y
    needs_other = needs_x if y is None else needs_y
    grad = _through_masks(grad, mask, causal=ctx.causal)
    dmask = grad.sum_to_size(mask.shape) if needs_mask else None
    if not (needs_x or needs_a or needs_b or needs_other):
        return None, None, None, None, None, None, dmask, None, None
    p, q = project(x, a), project(other, b)
    grad = _through_scale(grad, p, q, ctx.scale, ctx.softcap)
    dp, dq = _score_gradients(grad, p, q, needs_p=needs_x or needs_a, needs_q=needs_other or needs_b)
    dx = da = d_other = db = None
    if dp is not None:
        dx, da = projection_gradients(
            dp.sum_to_size(projected_shape(x, a)), x, a, needs_x=needs_x, needs_weight=needs_a
        )
    if dq is not None:
        d_other, db = projection_gradients(
            dq.sum_to_size(projected_shape(other, b)), other, b, needs_x=needs_other, needs_weight=needs_b
        )
    if y is not None:
        return dx, da, db, d_other, None, None, dmask, None, None
    both = dx + d_other if dx is not None and d_other is not None else None
    return both, da, db, None, None, None, dmask, None, None


def uses_own_backward(grad: Tensor, p: Tensor, q: Tensor) -> bool:  # noqa: ARG001 (what a measured choice reads)
    """Return whether `score_gradients` computes dP and dQ: where it was measured faster than two matmuls.

    Nowhere: on an H200 it was slower than two matmuls at nine of ten points, up to 3 times (benchmarks/backward.py).
    It cannot be differentiated and launches on real memory, so it must not be
    chosen while gradients are recorded (a second derivative) or while a compiler traces.
    """
    return False


def _score_gradients(
    grad: Tensor, p: Tensor, q: Tensor, *, needs_p: bool, needs_q: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return dP = grad Q and dQ = grad^T P, those that are needed."""
    if needs_p and needs_q and uses_own_backward(grad, p, q):
        return score_gradients(grad, p, q)
    return grad @ q if needs_p else None, grad.mT @ p if needs_q else None


def _through_masks(grad: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
    """Return the gradient of what was not replaced by -inf; 0 elsewhere, also where it was NaN."""
    if mask is not None and mask.dtype == torch.bool:
        grad = grad.masked_fill(~mask, 0)
    return grad.tril() if causal else grad


def _through_scale(grad: Tensor, p: Tensor, q: Tensor, scale: float | None, softcap: float | None) -> Tensor:
    """Return the gradient of P Q^T."""
    if softcap is not None:
        capped = torch.tanh((p @ q.mT) * ((1.0 if scale is None else scale) / softcap))
        grad = grad * (1 - capped * capped)
    return grad if scale is None else grad * scale
