"""What an attention call asks for, as sizes only, and what an implementation of it is.

Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class AttentionProblem:
    """One shape on one device.

    Attributes:
        heads, groups: H and G.
        queries: T.
        rank, width: R and F.
        dtype: "bfloat16", ...
        device: "cpu", "cuda:0".
        is_row_major: the last dimension of q, k and v has unit stride.
    """

    heads: int
    groups: int
    queries: int
    rank: int
    width: int
    dtype: str
    device: str
    is_row_major: bool = True

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor) -> AttentionProblem:
        """Return the problem of q (B, H, T, R), k (B, G, U, R) and v (B, G, U, F)."""
        return cls(
            heads=q.shape[1],
            groups=k.shape[1],
            queries=q.shape[2],
            rank=q.shape[3],
            width=v.shape[3],
            dtype=str(q.dtype).removeprefix("torch."),
            device=str(q.device),
            is_row_major=all(t.stride(-1) == 1 or t.shape[-1] == 1 for t in (q, k, v)),
        )

    @property
    def rows(self) -> int:
        """T H / G: query rows that share the keys of one key head."""
        return self.queries * self.heads // self.groups


class AttentionKernel(Protocol):
    """One way to compute attention."""

    @property
    def name(self) -> str: ...

    def refuses(self, problem: AttentionProblem) -> str:
        """Return why it cannot run this problem; empty when it can."""

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
        """Return softmax(q k^T scale + mask) v, (B, H, T, F), without checks; no dimension is 0."""
