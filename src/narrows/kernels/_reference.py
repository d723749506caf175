"""The specification: the chains as anyone would write them, on any device, differentiable.

Letters: T tokens, U other tokens, D input, E output features, R rank, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from narrows.kernels._group import project_each
from narrows.kernels._linear_epilogue import activate_
from narrows.kernels._matmul import matmul, project
from narrows.kernels._refusal import wrong_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        middle_bias: Tensor | None = None,
        residual: Tensor | None = None,
        activation: str | None = None,
    ) -> Tensor:
        """Return activation((x a^T + middle_bias) b + bias) + residual, (..., [H,] T, E).

        Args:
            bias: (E,), added inside the second matmul, so that the result is rounded once.
            middle_bias: (R,), added inside the first one.
            residual: (..., [H,] T, E).
            activation: None or one of ACTIVATIONS.
        """
        h = _project(x, factors.a, middle_bias)
        result = activate_(_expand(h, factors.b, bias, out), activation)
        return result if residual is None else result.add_(residual)

    def run_group(self, x: Tensor, factors: Sequence[Factors], biases: Sequence[Tensor | None]) -> list[Tensor]:
        """Return (x a^T) b + bias of every member, (..., T, E): one matmul more than members for stacked factors."""
        parts = project_each(x, [f.a for f in factors])
        return [_expand(p, f.b, bias, None) for p, f, bias in zip(parts, factors, biases, strict=True)]

    def run_gated(
        self,
        x: Tensor,
        gate: Factors,
        up: Factors,
        *,
        gate_bias: Tensor | None = None,
        up_bias: Tensor | None = None,
        activation: str | None = "silu",
    ) -> Tensor:
        """Return activation(x gate + gate_bias) * (x up + up_bias), (..., T, E)."""
        opening, values = self.run_group(x, (gate, up), (gate_bias, up_bias))
        return activate_(opening, activation).mul_(values)


def _project(x: Tensor, a: Tensor, middle_bias: Tensor | None) -> Tensor:
    """Return x a^T + middle_bias, (..., [H,] T, R)."""
    if middle_bias is None:
        return project(x, a)
    if a.ndim == 3:
        return project(x, a).add_(middle_bias)
    # Not functional.linear: for some x of other than two dimensions it rounds before it adds the bias.
    rows = x.reshape(-1, x.shape[-1])
    return torch.addmm(middle_bias, rows, a.mT).view(*x.shape[:-1], a.shape[-2])


def _expand(h: Tensor, b: Tensor, bias: Tensor | None, out: Tensor | None) -> Tensor:
    """Return h b + bias, (..., [H,] T, E)."""
    if bias is None:
        return matmul(h, b, out=out)
    if b.ndim == 3:
        return torch.add(matmul(h, b, out=out), bias, out=out)
    rows = h.reshape(-1, h.shape[-1])
    result = torch.addmm(bias, rows, b, out=None if out is None else out.view(-1, b.shape[-1]))
    return result.view(*h.shape[:-1], b.shape[-1]) if out is None else out


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
