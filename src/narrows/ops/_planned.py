"""The chains at the rank that a table names for this length, for modules that hold a plan.

A compiler sees one operation that looks the rank up itself; eager code takes the prefix first, which
saves that operation's dispatch.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch

from narrows.ops._bilinear import bilinear_tensors
from narrows.ops._checks import check_bilinear, check_linear
from narrows.ops._library import AUTO
from narrows.ops._linear import linear_tensors
from narrows.ops._planned_op import bilinear_planned_op, linear_planned_op, rank_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def linear_planned(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, table: Sequence[int]) -> Tensor:
    """Return what `linear_tensors` returns for the first r ranks of a and b.

    Args:
        x: (..., T, D).
        a, b: (R, D) and (R, E).
        bias: (E,).
        table: first and last number of tokens (all leading dimensions of x together) and r, in
            turn; R where no row holds them. Empty: always R.
    """
    if not (table and torch.compiler.is_compiling()):
        a, b = _prefix(a, b, table, prod(x.shape[:-1]))
        return linear_tensors(x, a, b, bias)
    check_linear(x, a, b, bias)
    return linear_planned_op(x, a, b, bias, None, None, None, AUTO, list(table))  # type: ignore[no-any-return]


def bilinear_planned(  # noqa: PLR0917 (of `bilinear_tensors`)
    x: Tensor,
    a: Tensor,
    b: Tensor,
    y: Tensor | None,
    scale: float | None,
    mask: Tensor | None,
    table: Sequence[int],
) -> Tensor:
    """Return what `bilinear_tensors` returns for the first r ranks of a and b.

    Args:
        x: (..., T, D).
        a, b: ([H,] R, D) and ([H,] R, E).
        y: (..., U, E); None: Y = X.
        scale, mask: as in `narrows.bilinear`.
        table: as in `linear_planned`, for T alone.
    """
    if not (table and torch.compiler.is_compiling()):
        a, b = _prefix(a, b, table, x.shape[-2] if x.ndim > 1 else 1)
        return bilinear_tensors(x, a, b, y, scale=scale, mask=mask)
    check_bilinear(x, a, b, y, mask, None)
    return bilinear_planned_op(x, a, b, y, scale, None, mask, False, AUTO, list(table))  # type: ignore[no-any-return]


def _prefix(a: Tensor, b: Tensor, table: Sequence[int], tokens: int) -> tuple[Tensor, Tensor]:
    """Return views of the first ranks of a and b that the table names; themselves for all."""
    full = a.shape[-2]
    if not table or (rank := rank_at(table, tokens, full)) == full:
        return a, b
    return a[..., :rank, :], b[..., :rank, :]
