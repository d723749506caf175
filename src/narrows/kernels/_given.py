"""A bilinear chain whose weight came as a product, run as a model runs it: the honest dense side of such a weight.

Letters: T tokens, U other tokens, D, E features, H query heads, G key heads, K inner size of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from narrows.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Given:
    """The two operands of weight_h = right_g(h)^T left_h, stacked where both read the same x.

    Attributes:
        left: (H K, D), queries.
        right: (G K, E), keys; G divides H.
        num_heads, num_kv_heads: H and G.
        is_self: Y = X: `left` and `right` are then views of one (H K + G K, D) block.
    """

    left: Tensor
    right: Tensor
    num_heads: int
    num_kv_heads: int
    is_self: bool

    @classmethod
    def of(cls, left: Tensor, right: Tensor, *, is_self: bool) -> Given:
        """Return the operands laid out for running.

        Args:
            left: (K, D) or (H, K, D).
            right: (K, E) or (G, K, E).
        """
        H, G = (operand.shape[0] if operand.ndim == 3 else 1 for operand in (left, right))
        if H % G or left.shape[-2] != right.shape[-2]:
            raise ShapeError(
                f"left {tuple(left.shape)} and right {tuple(right.shape)} must be (H, K, D) and (G, K, E), "
                f"with the same K and G dividing H: here H={H}, G={G}."
            )
        left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
        if is_self:
            stacked = torch.cat([left, right])
            left, right = stacked[: len(left)], stacked[len(left) :]
        return cls(left, right, H, G, is_self)

    def clone(self) -> Given:
        """Return the same operands in memory of their own."""
        H, G = self.num_heads, self.num_kv_heads
        left, right = self.left.view(H, -1, self.left.shape[-1]), self.right.view(G, -1, self.right.shape[-1])
        return Given.of(left.clone(), right.clone(), is_self=self.is_self)

    def run(self, x: Tensor, y: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
        """Return (x left^T)(y right^T)^T, (H, T, U), or (T, U) for one head: 2 matmuls for Y = X, else 3.

        Args:
            x: (T, D).
            y: (U, E); None: Y = X.
            out: contiguous, receives the result.
        """
        q, k = self._project(x, y)
        if self.num_heads == 1:
            return torch.mm(q.t(), k, out=out)
        rows = q.shape[0] // self.num_heads
        q_HKT, k_GKU = q.view(self.num_heads, rows, -1), k.view(self.num_kv_heads, rows, -1)
        if self.num_kv_heads < self.num_heads:
            k_GKU = k_GKU.repeat_interleave(self.num_heads // self.num_kv_heads, dim=0)
        return torch.bmm(q_HKT.mT, k_GKU, out=out)

    def _project(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return q (H K, T) and k (G K, U)."""
        if y is not None or not self.is_self:
            return torch.mm(self.left, x.t()), torch.mm(self.right, (x if y is None else y).t())
        stacked = self.left.as_strided((len(self.left) + len(self.right), x.shape[1]), (x.shape[1], 1))
        both = torch.mm(stacked, x.t())
        return both[: len(self.left)], both[len(self.left) :]
