"""How operands lie in memory, as far as a kernel must know: one stride of rows, one of heads, one of batches.

Letters: T tokens, D features, R rank, H heads, B product of leading dimensions.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


class Inputs(NamedTuple):
    """Attributes:
    x: (..., T, D). y: (..., U, E); None: Y = X.
    a: (R, D) or (H, R, D). b: (R, E) or (H, R, E).
    mask: broadcasts to (..., [H,] T, U).
    """

    x: Tensor
    a: Tensor
    b: Tensor
    y: Tensor | None
    mask: Tensor | None

    @property
    def other(self) -> Tensor:
        """y, or x where Y = X."""
        return self.x if self.y is None else self.y

    @property
    def heads(self) -> int:
        """H; 1: none."""
        return self.a.shape[0] if self.a.ndim == 3 else 1


class Rows(NamedTuple):
    """Attributes:
    number: rows, leading dimensions included.
    stride: elements between two rows.
    is_copied: they do not lie like this: a contiguous copy does.
    """

    number: int
    stride: int
    is_copied: bool


class Heads(NamedTuple):
    """Attributes:
    head: elements between two heads.
    row: elements between two rows of a head.
    is_copied: they do not lie like this: a contiguous copy does.
    """

    head: int
    row: int
    is_copied: bool


def rows_of(tensor: Tensor) -> Rows:
    """Return how the rows of (..., T, D) lie."""
    count, width = prod(tensor.shape[:-1]), tensor.shape[-1]
    stride = uniform_stride(tensor.shape[:-1], tensor.stride()[:-1])
    if stride is None or (tensor.stride(-1) != 1 and width > 1):
        return Rows(count, width, is_copied=True)
    return Rows(count, stride, is_copied=False)


def heads_of(weight: Tensor) -> Heads:
    """Return how the heads and rows of (R, D) or (H, R, D) lie."""
    rank, width = weight.shape[-2:]
    if weight.stride(-1) != 1 and width > 1:
        return Heads(rank * width, width, is_copied=True)
    head = weight.stride(0) if weight.ndim == 3 and weight.shape[0] > 1 else rank * weight.stride(-2)
    return Heads(head, weight.stride(-2), is_copied=False)


def uniform_stride(shape: Sequence[int], strides: Sequence[int]) -> int | None:
    """Return the one stride that walks through all these dimensions in order; None when there is none; 0 for one."""
    found: int | None = None
    expected = 0
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size == 1:
            continue
        if found is None:
            found = stride
        elif stride != expected:
            return None
        expected = stride * size
    return 0 if found is None else found


def is_adjacent(a: Tensor, b: Tensor) -> bool:
    """Return whether the rows of a and b alternate in memory (`Factors.pair`), told from addresses and strides."""
    width = a.shape[-1]
    return (
        b.data_ptr() - a.data_ptr() == width * a.element_size()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.stride(-1) == 1
        and (a.stride(-2) == 2 * width or a.shape[-2] == 1)
    )


def batch_stride(lead: Sequence[int], common: Sequence[int], step: int) -> int | None:
    """Return the stride over the batches `common` of something with leading dimensions `lead`, `step` apart.

    None: it is repeated in a way that one stride cannot express.
    """
    if prod(lead) == prod(common):
        return step
    return 0 if prod(lead) == 1 else None


class MaskStrides(NamedTuple):
    """Attributes:
    batch, head, row, column: elements between neighbours; 0 where the mask is the same.
    is_copied: the batches do not lie like this: an expanded contiguous copy does.
    """

    batch: int
    head: int
    row: int
    column: int
    is_copied: bool


def mask_strides(mask: Tensor, shape: Sequence[int], heads: int) -> MaskStrides:
    """Return how a mask lies against scores of this shape, (..., [H,] T, U); heads = 1: no dimension of heads."""
    expanded = mask.expand(*shape)
    batches = len(shape) - (2 if heads == 1 else 3)
    batch = uniform_stride(shape[:batches], expanded.stride()[:batches])
    if batch is None:
        T, U = shape[-2:]
        return MaskStrides(heads * T * U, T * U if heads > 1 else 0, U, 1, is_copied=True)
    head = 0 if heads == 1 else expanded.stride(-3)
    return MaskStrides(batch, head, expanded.stride(-2), expanded.stride(-1), is_copied=False)


def broadcast_lead(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    """Return the common leading dimensions of two that broadcast."""
    return tuple(torch.broadcast_shapes(tuple(left), tuple(right)))  # type: ignore[no-untyped-call]
