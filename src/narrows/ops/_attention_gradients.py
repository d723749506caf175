"""Gradients of attention: computed again by torch's own attention and sent back through it.

Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from narrows.kernels import ATTENTION_MATH, prepare_sdpa

if TYPE_CHECKING:
    from torch import Tensor

Gradients = tuple["Tensor | None", ...]


def keep_attend(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 (torch's signature)
    """Keep what `attend_gradients` reads."""
    q, k, v, scale, mask, causal, lengths, _ = inputs
    ctx.save_for_backward(q, k, v, mask, lengths)
    ctx.scale, ctx.causal = scale, causal


def attend_gradients(ctx: Any, grad: Tensor) -> Gradients:
    """Return the gradients of (q, k, v, scale, mask, causal, lengths, impl).

    For a gradient of these gradients (create_graph) and for that of a mask, the specification is
    differentiated, which holds the scores; otherwise torch's fused kernels, which do not.
    """
    *given, lengths = ctx.saved_tensors
    needs = [ctx.needs_input_grad[position] for position in (0, 1, 2, 4)]
    if given[0].numel() == 0 or given[1].numel() == 0:
        found = tuple(torch.zeros_like(tensor) for tensor, need in zip(given, needs, strict=True) if need)
    else:
        found = _found(grad, given, needs, ctx.scale, ctx.causal, lengths)
    rest = iter(found)
    dq, dk, dv, dmask = (next(rest) if need else None for need in needs)
    return dq, dk, dv, None, dmask, None, None, None


def _found(  # noqa: PLR0917 (the operation's own order)
    grad: Tensor, given: list[Any], needs: list[bool], scale: float, causal: bool, lengths: Tensor | None
) -> tuple[Tensor, ...]:
    """Return the gradients of those of q, k, v and mask that need one."""
    twice = torch.is_grad_enabled()
    with torch.enable_grad():
        leaves = [_leaf(tensor, twice) if need else tensor for tensor, need in zip(given, needs, strict=True)]
        wanted = [leaf for leaf, need in zip(leaves, needs, strict=True) if need]
        q, k, v, mask = leaves
        if not twice and not needs[3]:
            call = prepare_sdpa(q, k, v, mask=mask, causal=causal, lengths=lengths, may_share=False)
            return call.differentiate(scale, wanted, grad)
        out = ATTENTION_MATH.run(q, k, v, scale=scale, mask=mask, causal=causal, lengths=lengths)
        return torch.autograd.grad(out, wanted, grad, create_graph=twice)


def _leaf(tensor: Tensor, twice: bool) -> Tensor:
    """Return a tensor of its own to differentiate by: one tensor may have been given as q, k and v."""
    return tensor.view_as(tensor) if twice else tensor.detach().requires_grad_()
