"""Several factors that read the same x: their projections as few matmuls as memory allows.

Letters: T tokens, D input features, R rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from narrows._values import Factors
from narrows.errors import DeviceError, DtypeError, InputError, ShapeError
from narrows.kernels._matmul import project

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def stack(factors: Sequence[Factors]) -> tuple[Factors, ...]:
    """Return the same factors with every `a` a view of one block, so that one matmul projects x for all.

    For `linear_group` and `gated_linear`. The block is a copy of the `a`; every `b` is shared. A
    prefix (`truncate`) of stacked factors is no longer next to its neighbour in memory: truncate
    first, then stack.

    Args:
        factors: each a (R, D), b (R, E): the same D, dtype and device, any R and E.

    Raises:
        InputError: no factors.
        ShapeError: factors with heads, or of different D.
        DtypeError, DeviceError: factors of several dtypes, or on several devices.
    """
    if not factors:
        raise InputError("factors is empty: give at least one Factors.")
    sizes = [tuple(f.a.shape) for f in factors]
    if any(len(size) != 2 or size[1] != sizes[0][1] for size in sizes):
        raise ShapeError(f"factors have a of {sizes}: each must be (R, D) without heads, with the same D.")
    if len({f.a.dtype for f in factors}) > 1:
        raise DtypeError(f"factors are {[f.a.dtype for f in factors]}: give all the same dtype.")
    if len({f.a.device for f in factors}) > 1:
        raise DeviceError(f"factors are on {[str(f.a.device) for f in factors]}: move all to one device.")
    blocks = torch.split(torch.cat([f.a for f in factors]), [f.rank for f in factors])
    return tuple(Factors(a, f.b, f.certificate, f.is_ordered) for a, f in zip(blocks, factors, strict=True))


def join(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return the matrices (R, D) in order, with those that lie one after another joined into one view."""
    joined: list[Tensor] = []
    for weight in weights:
        if joined and _follows(joined[-1], weight):
            before = joined.pop()
            weight = before.as_strided((before.shape[0] + weight.shape[0], before.shape[1]), before.stride())  # noqa: PLW2901
        joined.append(weight)
    return joined


def project_each(x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Return x weight^T (..., T, R) of every weight, with one matmul for each block that `join` finds."""
    ranks = [weight.shape[0] for weight in weights]
    return _apart([project(x, block) for block in join(weights)], ranks)


def _apart(blocks: list[Tensor], ranks: list[int]) -> list[Tensor]:
    """Return the columns of every member, from blocks that hold one or several of them."""
    parts: list[Tensor] = []
    for block in blocks:
        taken = 0
        while taken < block.shape[-1]:
            rank = ranks[len(parts)]
            parts.append(block.narrow(-1, taken, rank))
            taken += rank
    return parts


def _follows(before: Tensor, weight: Tensor) -> bool:
    """Return whether the rows of `weight` start where those of `before` end, in the same memory."""
    end = before.data_ptr() + before.shape[0] * before.stride(0) * before.element_size()
    return (
        weight.data_ptr() == end
        and weight.stride() == before.stride()
        and weight.untyped_storage().data_ptr() == before.untyped_storage().data_ptr()
    )
