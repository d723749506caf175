"""The specification: the chains as anyone would write them, on any device, differentiable.

Letters: T tokens, U other tokens, D input, E output features, R rank, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from narrows.kernels._matmul import matmul, project
from narrows.kernels._refusal import wrong_kind

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Factors, Kind, Problem


@dataclass(frozen=True, slots=True)
class LinearTwo:
    """y_TE = (x_TD a_RD^T) b_RE: two matmuls, all leading dimensions of x flattened into one."""

    name: str = "two"
    kind: Kind = "linear"

    def refuses(self, problem: Problem) -> str:
        """Return why it cannot run this problem; empty when it can."""
        return wrong_kind(self, problem)

    def launches(self, problem: Problem) -> int:  # noqa: ARG002 (of the protocol)
        """Return 2."""
        return 2

    def pack(self, factors: Factors) -> Factors:
        """Return the factors as they are: any strides will do."""
        return factors

    def run(
        self,
        x: Tensor,
        factors: Factors,
        y: Tensor | None = None,  # noqa: ARG002 (of the protocol)
        *,
        out: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Return (x a^T) b + bias, (..., [H,] T, E).

        Args:
            bias: (E,), added inside the second matmul, so that the result is rounded once.
        """
        h = project(x, factors.a)
        if bias is None:
            return matmul(h, factors.b, out=out)
        if factors.b.ndim == 3:
            return torch.add(matmul(h, factors.b, out=out), bias, out=out)
        shape = (*h.shape[:-1], factors.out_features)
        rows = h.reshape(-1, factors.rank)
        result = torch.addmm(bias, rows, factors.b, out=None if out is None else out.view(-1, shape[-1]))
        return result.view(shape) if out is None else out


@dataclass(frozen=True, slots=True)
class BilinearThree:
    """s_TU = (x_TD a_RD^T)(y_UE b_RE^T)^T: three matmuls, as the origin of this work writes it."""

    name: str = "three"
    kind: Kind = "bilinear"

    def refuses(self, problem: Problem) -> str:
        """Return why it cannot run this problem; empty when it can."""
        return wrong_kind(self, problem)

    def launches(self, problem: Problem) -> int:  # noqa: ARG002 (of the protocol)
        """Return 3."""
        return 3

    def pack(self, factors: Factors) -> Factors:
        """Return the factors as they are: any strides will do."""
        return factors

    def run(self, x: Tensor, factors: Factors, y: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
        """Return the scores, (..., [H,] T, U)."""
        p = project(x, factors.a)
        q = project(x if y is None else y, factors.b)
        return matmul(p, q.mT, out=out)
