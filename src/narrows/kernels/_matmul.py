"""One matmul and nothing else: what every implementation is made of.

Letters: N any number of leading dimensions, M K N rows, inner size, columns.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def project(x: Tensor, weight: Tensor) -> Tensor:
    """Return x weight^T, (..., T, R) from x (..., T, D) and weight (R, D) or (H, R, D), with one matmul."""
    return functional.linear(x, weight) if weight.ndim == 2 else matmul(x, weight.mT)


def matmul(left: Tensor, right: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return left (..., M, K) @ right (..., K, N), contiguous, with exactly one mm or bmm.

    Args:
        out: contiguous, of the result's shape; receives the result. torch.matmul(out=) is not
            used: for more than two dimensions it computes elsewhere and swaps the storage in.
    """
    if right.ndim == 2:
        return _flat(left, right, out)
    lead = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])  # type: ignore[no-untyped-call]
    left, right = left.expand(*lead, -1, -1), right.expand(*lead, -1, -1)
    shape = (*lead, left.shape[-2], right.shape[-1])
    batch = prod(lead)
    result = torch.bmm(
        left.reshape(batch, *left.shape[-2:]),
        right.reshape(batch, *right.shape[-2:]),
        out=None if out is None else out.view(batch, *shape[-2:]),
    )
    return result.view(shape) if out is None else out


def _flat(left: Tensor, right: Tensor, out: Tensor | None) -> Tensor:
    """Every row of `left` against one matrix: a single mm over all leading dimensions."""
    if left.ndim == 2:
        return torch.mm(left, right, out=out)
    shape = (*left.shape[:-1], right.shape[-1])
    rows = left.reshape(-1, left.shape[-1])
    result = torch.mm(rows, right, out=None if out is None else out.view(rows.shape[0], shape[-1]))
    return result.view(shape) if out is None else out
