"""Is this tensor one that can be factorised? And its scaled float64 copy, if it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from narrows.errors import DeviceError, DtypeError, InputError, NonFiniteError, ShapeError

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# 4**500 = 2**1000 is a float64 and so is its inverse.
MAX_EXPONENT = 500


@dataclass(frozen=True)
class Scaled:
    """A tensor divided by 4**exponent, so that squares neither overflow nor vanish.

    A power of two is exact, and an even one splits evenly between both factors.
    """

    tensor: torch.Tensor
    exponent: int

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Scaled:
        """Return the float64 copy of a finite tensor whose largest element is about 1."""
        copy = tensor.detach().to(torch.float64)
        _, exponent = math.frexp(float(copy.abs().max()))
        half = max(-MAX_EXPONENT, min(MAX_EXPONENT, round(exponent / 2)))
        return cls(copy * 4.0**-half, half)


def check_operand(name: str, tensor: torch.Tensor) -> None:
    """Pass a plain, dense, finite floating tensor (m, n) or (H, m, n) with sizes of at least 1.

    Raises:
        InputError: not a plain strided torch.Tensor.
        DtypeError, DeviceError, ShapeError, NonFiniteError: as their names say.
    """
    _check_plain(name, tensor)
    if tensor.dtype not in DTYPES:
        raise DtypeError(
            f"{name} is {tensor.dtype}, which has no factorisation here. "
            f"Convert it first, for example {name}.to(torch.float32); float16, bfloat16 and float64 work too."
        )
    if tensor.ndim not in {2, 3} or 0 in tensor.shape:
        raise ShapeError(f"{name} {tuple(tensor.shape)} must be 2-D, or 3-D over heads, with every size at least 1.")
    if tensor.is_meta:
        raise DeviceError(f"{name} is on the meta device and has no values: load it on cpu or cuda first.")
    _check_finite(name, tensor.detach())


def _check_plain(name: str, tensor: object) -> None:
    """Refuse subclasses (sharded, quantised): they may compute something else than values."""
    if type(tensor) not in {torch.Tensor, torch.nn.Parameter}:
        raise InputError(f"{name} is a {type(tensor).__name__}: give a plain torch.Tensor.")
    if isinstance(tensor, torch.Tensor) and tensor.layout != torch.strided:
        raise InputError(f"{name} has the layout {tensor.layout}: give a dense tensor, {name}.to_dense().")


def _check_finite(name: str, tensor: torch.Tensor) -> None:
    """Never depends on the SVD's backend: some return NaN, some garbage, without an error."""
    finite = torch.isfinite(tensor)
    if bool(finite.all()):
        return
    bad = (~finite).nonzero()
    nans = int(torch.isnan(tensor).sum())
    first = tuple(int(i) for i in bad[0])
    raise NonFiniteError(
        f"{name} {tuple(tensor.shape)} holds {nans} NaN and {len(bad) - nans} Inf; the first is at index {first}. "
        "Repair or re-load it: a factorisation of it means nothing."
    )


def check_product(left: torch.Tensor, right: torch.Tensor) -> None:
    """Pass (K, D) with (K, E), or (H, K, D) with (G, K, E) where H is a multiple of G.

    Raises:
        As `check_operand`, and ShapeError, DtypeError or DeviceError for two that do not fit.
    """
    check_operand("left", left)
    check_operand("right", right)
    shapes = f"left {tuple(left.shape)} and right {tuple(right.shape)}"
    if left.ndim != right.ndim or left.shape[-2] != right.shape[-2]:
        raise ShapeError(f"{shapes} must be (K, D) and (K, E), or (H, K, D) and (G, K, E), with the same K.")
    if left.ndim == 3 and left.shape[0] % right.shape[0]:
        H, G = left.shape[0], right.shape[0]
        raise ShapeError(f"{shapes}: the H={H} heads of left must be a multiple of the G={G} of right.")
    if left.dtype != right.dtype:
        raise DtypeError(f"left is {left.dtype} and right is {right.dtype}: give both the same dtype.")
    if left.device != right.device:
        raise DeviceError(f"left is on {left.device} and right is on {right.device}: move both to one device.")
