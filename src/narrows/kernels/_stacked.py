"""Bilinear with Y = X: both projections are one matmul, so that x is read once.

`Factors.pair` alternates the rows of a and b: pair_R2D. The transposed projection
(pair x^T) has p^T in its even rows and q^T in its odd rows: views with unit inner stride,
which a matmul reads without a copy. (x pair^T would put p and q in alternating columns,
inner stride 2, which BLAS cannot read.)

Letters: T tokens, D features, R rank, H heads, B product of leading dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

from narrows.kernels._matmul import matmul
from narrows.kernels._refusal import wrong_kind

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Factors, Kind, Problem


@dataclass(frozen=True, slots=True)
class BilinearTwo:
    """s_TT = (x a^T)(x b^T)^T with [a; b] interleaved: two matmuls. Not differentiable by itself."""

    name: str = "two"
    kind: Kind = "bilinear"

    def refuses(self, problem: Problem) -> str:
        """Return why it cannot run this problem; empty when it can."""
        if problem.kind == self.kind and not problem.is_self:
            return f"two reads x once and needs Y = X; here y has U={problem.other_tokens} tokens of its own"
        return wrong_kind(self, problem)

    def launches(self, problem: Problem) -> int:  # noqa: ARG002 (of the protocol)
        """Return 2."""
        return 2

    def pack(self, factors: Factors) -> Factors:
        """Return the factors interleaved (see `Factors.pair`); a copy only where they are not."""
        return factors.interleaved()

    def run(
        self,
        x: Tensor,
        factors: Factors,
        y: Tensor | None = None,  # noqa: ARG002 (of the protocol)
        *,
        out: Tensor | None = None,
    ) -> Tensor:
        """Return the scores, (..., [H,] T, T)."""
        pair = factors.pair
        assert pair is not None, "run() wants factors from pack()"
        return self.run_pair(x, pair, out=out)

    def run_pair(self, x: Tensor, pair: Tensor, *, out: Tensor | None = None) -> Tensor:
        """Return the scores from a pair that was found before, (R, 2, D) or (H, R, 2, D)."""
        p, q_transposed = _project_once(x, pair) if pair.ndim == 3 else _project_heads(x, pair)
        return matmul(p, q_transposed, out=out)


def _project_once(x: Tensor, pair_R2D: Tensor) -> tuple[Tensor, Tensor]:
    """Return views p (..., T, R) and q^T (..., R, T) of one mm over all tokens."""
    rank, _, width = pair_R2D.shape
    rows = pair_R2D.view(2 * rank, width)
    if x.ndim == 2:
        tokens = x.shape[0]
        both = torch.mm(rows, x.t())
        # Two calls in place of two slices and a transpose: 2.2 us instead of 3.0 (one core of a 2-core EPYC).
        return both.as_strided((tokens, rank), (1, 2 * tokens)), both.as_strided(
            (rank, tokens), (2 * tokens, 1), tokens
        )
    both = rows @ x.reshape(-1, width).mT
    p_transposed = both[0::2].view(rank, *x.shape[:-1]).movedim(0, -2)
    q_transposed = both[1::2].view(rank, *x.shape[:-1]).movedim(0, -2)
    return p_transposed.mT, q_transposed


def _project_heads(x: Tensor, pair_HR2D: Tensor) -> tuple[Tensor, Tensor]:
    """Return views p (..., H, T, R) and q^T (..., H, R, T) of one mm, or of one bmm where x has a batch."""
    heads, rank, _, width = pair_HR2D.shape
    if x.ndim > 2 and x.shape[-3] != 1:  # x differs by head
        both = matmul(pair_HR2D.reshape(heads, 2 * rank, width), x.mT)
        both = both.view(*both.shape[:-2], rank, 2, x.shape[-2])
    else:
        lead = x.shape[:-3]
        both = _project_batch(x.reshape(prod(lead), *x.shape[-2:]), pair_HR2D.reshape(-1, width))
        # A batch keeps its own block, (B, 2HR, T): batch and heads then merge into one bmm without a copy.
        both = both.view(*lead, heads, rank, 2, x.shape[-2])
    return both[..., 0, :].mT, both[..., 1, :]


def _project_batch(x_BTD: Tensor, rows: Tensor) -> Tensor:
    """Return rows x^T, (B, 2HR, T), with the same rows for every element of the batch."""
    if x_BTD.shape[0] == 1:
        return (rows @ x_BTD[0].mT).unsqueeze(0)
    return torch.bmm(rows.expand(x_BTD.shape[0], *rows.shape), x_BTD.mT)
