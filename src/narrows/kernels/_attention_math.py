"""The specification of attention: scores, softmax and values as anyone would write them, differentiable.

Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from narrows.kernels._attention_mask import merged_mask, only_valid

if TYPE_CHECKING:
    from torch import Tensor

    from narrows.kernels._attention_problem import AttentionProblem


@dataclass(frozen=True, slots=True)
class AttentionMath:
    """Holds the scores (B, H, T, U), in float32 at least: what all others are compared with."""

    name: str = "math"

    def refuses(self, problem: AttentionProblem) -> str:  # noqa: ARG002 (of the protocol)
        """Return "": it runs everything."""
        return ""

    def run(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        mask: Tensor | None = None,
        causal: bool = False,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Return softmax(q k^T scale + mask) v, (B, H, T, F); a row that sees no key is 0, as in torch's."""
        (B, H, T, _), (G, U) = q.shape, k.shape[1:3]
        wide = torch.promote_types(q.dtype, torch.float32)
        # Query heads that share a key head as its rows: keys and values are not repeated.
        rows = q.to(wide).reshape(B, G, H // G * T, -1)
        scores = (rows @ only_valid(k, lengths).to(wide).mT * scale).view(B, H, T, U)
        allowed = merged_mask(mask, causal=causal, lengths=lengths, queries=T, keys=U, device=q.device)
        weights = _softmax(scores, allowed).view(B, G, H // G * T, U)
        return (weights @ only_valid(v, lengths).to(wide)).view(B, H, T, -1).to(q.dtype)


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the softmax over the last dimension; rows that are -inf throughout give 0, and 0 as gradients."""
    if mask is None:
        return scores.softmax(-1)
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    blind = (scores == -torch.inf).all(-1, keepdim=True)
    return scores.masked_fill(blind, 0).softmax(-1).masked_fill(blind, 0)
