"""Operands to try operations on: sizes at every edge, values of every kind, memory of every layout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
WIDTHS = (1, 2, 3, 5, 7, 8, 11, 13, 16, 17, 31, 32, 33, 47, 64, 65, 67)
LENGTHS = (1, 0, *WIDTHS[1:])
RANKS = (1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31, 33)
# A window of float16 is narrow: 2^-24..65504.
MOST_EXPONENT = {torch.float16: 3}
SPARSE = 0.1
OUTLIER = {torch.float16: 16.0}


def _normal(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:  # noqa: ARG001
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _whole(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:  # noqa: ARG001
    return torch.randint(-2, 3, shape, generator=generator).to(torch.float64)


def _sparse(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    kept = torch.rand(shape, generator=generator) < SPARSE
    return _normal(shape, generator, dtype) * kept


def _outlier(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    values = _normal(shape, generator, dtype)
    if values.numel():
        values.view(-1)[values.numel() // 2] *= OUTLIER.get(dtype, 1000.0)
    return values


VALUES: dict[str, Callable[[tuple[int, ...], torch.Generator, torch.dtype], Tensor]] = {
    "normal": _normal,
    "whole": _whole,
    "sparse": _sparse,
    "outlier": _outlier,
}


def _columns(tensor: Tensor) -> Tensor:
    return tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor


def _window(tensor: Tensor) -> Tensor:
    """Return a copy inside NaN: reading past an edge shows."""
    around = tensor.new_full([size + 3 for size in tensor.shape], math.nan)
    inside = tuple(slice(1, 1 + size) for size in tensor.shape)
    around[inside] = tensor
    return around[inside]


def _every_other(tensor: Tensor) -> Tensor:
    """Return a copy whose last dimension has stride 2, with NaN between."""
    if not tensor.ndim:
        return tensor
    apart = torch.stack((tensor, torch.full_like(tensor, math.nan)), dim=-1)
    return apart[..., 0]


def _outer_first(tensor: Tensor) -> Tensor:
    """Return a copy whose first dimension varies fastest."""
    return tensor.movedim(0, -1).contiguous().movedim(-1, 0) if tensor.ndim else tensor


def _expanded(tensor: Tensor) -> Tensor:
    """Return one slice of the first dimension for all of it: other values, one memory."""
    return tensor[:1].expand(tensor.shape) if tensor.ndim and tensor.shape[0] else tensor


def _one_row(tensor: Tensor) -> Tensor:
    """Return the last row for all rows: stride 0 within a matrix."""
    return tensor[..., -1:, :].expand(tensor.shape) if tensor.ndim > 1 and tensor.shape[-2] else tensor


def _odd_start(tensor: Tensor) -> Tensor:
    """Return a contiguous copy that begins one element into its memory."""
    memory = tensor.new_full((tensor.numel() + 1,), math.nan)
    memory[1:] = tensor.reshape(-1)
    return memory[1:].view(tensor.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": torch.clone,
    "columns": _columns,
    "window": _window,
    "every other": _every_other,
    "outer first": _outer_first,
    "expanded": _expanded,
    "one row": _one_row,
    "odd start": _odd_start,
}


class Maker:
    """Makes the tensors of one case, each from its seed, in turn."""

    def __init__(self, dtype: str, values: str, seed: int) -> None:
        self.dtype = DTYPES[dtype]
        self._values = VALUES[values]
        self._generator = torch.Generator().manual_seed(seed)

    def tensor(self, *shape: int, layout: str = "plain", exponent: int = 0) -> Tensor:
        """Return values times 2^exponent (less for float16), rounded to the dtype, in a layout."""
        most = MOST_EXPONENT.get(self.dtype, abs(exponent))
        scale = 2.0 ** max(-most, min(most, exponent))
        values = self._values(shape, self._generator, self.dtype) * scale
        return LAYOUTS[layout](values.to(self.dtype))

    def keep(self, *shape: int, layout: str = "plain") -> Tensor:
        """Return a bool tensor that is True in three places of four."""
        return LAYOUTS_OF_BOOL[layout](torch.rand(shape, generator=self._generator) < 0.75)

    def whole(self, low: int, high: int, *shape: int) -> Tensor:
        """Return whole numbers of low..high - 1."""
        return torch.randint(low, high, shape, generator=self._generator)

    def order(self, size: int) -> Tensor:
        """Return a permutation."""
        return torch.randperm(size, generator=self._generator)


LAYOUTS_OF_BOOL = {name: LAYOUTS[name] for name in ("plain", "columns", "outer first", "expanded", "one row")}


def lengths() -> st.SearchStrategy[int]:
    """Return numbers of tokens; shrinks to 1."""
    return st.sampled_from(LENGTHS)


def widths() -> st.SearchStrategy[int]:
    """Return numbers of features."""
    return st.sampled_from(WIDTHS)


def ranks() -> st.SearchStrategy[int]:
    """Return ranks."""
    return st.sampled_from(RANKS)


def layouts() -> st.SearchStrategy[str]:
    """Return names of layouts."""
    return st.sampled_from(list(LAYOUTS))


def exponents() -> st.SearchStrategy[int]:
    """Return powers of two that values are scaled by."""
    return st.integers(-12, 12)


def dtypes() -> st.SearchStrategy[str]:
    """Return names of dtypes."""
    return st.sampled_from(list(DTYPES))


def values() -> st.SearchStrategy[str]:
    """Return names of kinds of values."""
    return st.sampled_from(list(VALUES))


def seeds() -> st.SearchStrategy[int]:
    """Return seeds of values."""
    return st.integers(0, 2**32 - 1)
