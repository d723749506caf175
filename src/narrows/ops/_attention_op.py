"""torch.ops.narrows.attend: computation, shape, gradients and FLOPs."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import register_flop_formula

from narrows.kernels import AttentionProblem, attention_kernel, auto_attention
from narrows.ops._attention_gradients import attend_gradients, keep_attend
from narrows.ops._library import AUTO, Shape, register

if TYPE_CHECKING:
    from torch import Tensor


def _attend(  # noqa: PLR0917 (of the schema)
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    mask: Tensor | None,
    causal: bool,
    lengths: Tensor | None,
    impl: str,
) -> Tensor:
    problem = AttentionProblem.of(q, k, v)
    chosen = auto_attention(problem) if impl == AUTO else attention_kernel(impl, problem)
    if q.numel() == 0 or k.numel() == 0:
        return q.new_zeros((*q.shape[:3], v.shape[3]))
    # Contiguous, as the shape function says: some of torch's kernels lay heads and rows out the other way.
    return chosen.run(q, k, v, scale=scale, mask=mask, causal=causal, lengths=lengths).contiguous()


def _attend_shape(  # noqa: PLR0917 (of the schema)
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,  # noqa: ARG001 (of the schema)
    mask: Tensor | None,  # noqa: ARG001
    causal: bool,  # noqa: ARG001
    lengths: Tensor | None,  # noqa: ARG001
    impl: str,
) -> Tensor:
    if impl != AUTO:
        attention_kernel(impl, AttentionProblem.of(q, k, v))
    return q.new_empty((*q.shape[:3], v.shape[3]))


attend_op = register(
    "attend(Tensor q, Tensor k, Tensor v, float scale, Tensor? mask, bool causal, Tensor? lengths, str impl) -> Tensor",
    _attend,
    _attend_shape,
    attend_gradients,
    keep_attend,
)


@register_flop_formula(torch.ops.narrows.attend)
def _attend_flops(q: Shape, k: Shape, v: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:  # noqa: ARG001
    """2 per multiply-add of q k^T and of the weights times v; masks and causality take nothing off, as in torch."""
    return 2 * prod(q[:3]) * k[2] * (q[3] + v[3])
