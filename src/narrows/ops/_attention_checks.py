"""What the operands of attention must be, checked once at the public door.

Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a value, D, E features.
Nothing here reads an address or a value: torch.compile and torch.export trace through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from narrows._values import Factors
from narrows.errors import DeviceError, DtypeError, InputError, ShapeError
from narrows.ops._checks import _broadcasts, _check_same

if TYPE_CHECKING:
    from torch import Tensor

INDEX_DTYPES = (torch.int32, torch.int64)


def check_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None,
    mask: Tensor | None,
    causal: bool,
    lengths: Tensor | None,
) -> None:
    """Raise InputError, ShapeError, DtypeError or DeviceError unless attention is defined for these."""
    check_scale(scale)
    _check_same("k", k, "q", q)
    _check_same("v", v, "k", k)
    _check_shapes(q, k, v)
    T, U = q.shape[2], k.shape[2]
    if causal and T > U:
        raise ShapeError(
            f"causal=True lets the last query see the last key, so it needs T <= U; here q has T={T}, k has U={U}."
        )
    if mask is not None:
        _check_mask(mask, q, (*q.shape[:3], U))
    if lengths is not None:
        _check_lengths(lengths, q)


def check_scale(scale: object) -> None:
    """Raise InputError where no scale was given."""
    if scale is None:
        raise InputError(
            "scale is missing: give scale=K**-0.5 with K the width of the heads that the factors came from. "
            "1 / sqrt(R) is wrong here: the scores of a rank R pair stand for those of the whole heads."
        )
    if isinstance(scale, torch.Tensor):
        raise InputError("scale is a Tensor: give a number.")


def attention_factors(factors: object) -> tuple[Tensor, Tensor]:
    """Return a (H, R, D) and b (G, R, E) of factors with heads, or of a pair of tensors.

    Raises:
        InputError: neither of them.
        ShapeError: without heads, of different ranks, or G does not divide H.
    """
    if isinstance(factors, Factors):
        a, b = factors.a, factors.b
    elif isinstance(factors, tuple) and len(factors) == 2:
        a, b = factors
    else:
        raise InputError(f"factors is a {type(factors).__name__}: give Factors, or a pair (a, b) of tensors.")
    _check_same("factors.b", b, "factors.a", a)
    if a.ndim != 3 or b.ndim != 3 or a.shape[1] != b.shape[1] or b.shape[0] < 1 or a.shape[0] % b.shape[0]:
        raise ShapeError(
            f"factors a {tuple(a.shape)} and b {tuple(b.shape)} must be (H, R, D) and (G, R, E), with the same R and "
            "G dividing H."
        )
    return a, b


def check_attention(x: Tensor, a: Tensor, b: Tensor, v: Tensor, y: Tensor | None) -> None:
    """Raise InputError, ShapeError, DtypeError or DeviceError unless x, y and v fit the factors and each other."""
    other = x if y is None else y
    _check_same("x", x, "factors.a", a)
    _check_same("y" if y is not None else "x", other, "factors.b", b)
    _check_same("v", v, "factors.b", b)
    _check_features("x", x, a, "D")
    _check_features("x (as y)" if y is None else "y", other, b, "E")
    G, U = b.shape[0], other.shape[-2]
    if v.ndim not in {3, 4} or v.shape[-3:-1] != (G, U):
        raise ShapeError(
            f"v {tuple(v.shape)} must be (B, G, U, F) or (G, U, F), here with G={G} as factors b {tuple(b.shape)} and "
            f"U={U} as the keys."
        )
    leads = [x.shape[:-2], other.shape[:-2], v.shape[:-3]]
    if not all(_broadcasts(left, right) for left in leads for right in leads):
        raise ShapeError(f"x, y and v have batches {[tuple(lead) for lead in leads]} that do not broadcast.")


def _check_features(name: str, tensor: Tensor, weight: Tensor, letter: str) -> None:
    if tensor.ndim not in {2, 3} or tensor.shape[-1] != weight.shape[-1]:
        raise ShapeError(
            f"{name} {tuple(tensor.shape)} must be (tokens, {letter}) or (B, tokens, {letter}), with {letter}="
            f"{weight.shape[-1]} as the factors {tuple(weight.shape)}."
        )


def _check_shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not q.ndim == k.ndim == v.ndim == 4:
        raise ShapeError(f"{shapes} must be (B, H, T, R), (B, G, U, R), (B, G, U, F).")
    if not q.shape[0] == k.shape[0] == v.shape[0]:
        raise ShapeError(f"{shapes} have batches B={q.shape[0]}, {k.shape[0]} and {v.shape[0]}: give all the same.")
    if q.shape[3] != k.shape[3] or q.shape[3] < 1 or v.shape[3] < 1:
        raise ShapeError(f"{shapes}: q and k need the same rank R and all a width of at least 1.")
    if k.shape[1] != v.shape[1] or k.shape[2] != v.shape[2]:
        raise ShapeError(f"{shapes}: k and v need the same key heads G and keys U.")
    if k.shape[1] < 1 or q.shape[1] % k.shape[1]:
        raise ShapeError(f"{shapes}: G={k.shape[1]} key heads must divide H={q.shape[1]} heads.")


def _check_mask(mask: Tensor, q: Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(mask, torch.Tensor):
        raise InputError(f"mask is a {type(mask).__name__}: give a torch.Tensor.")
    if mask.dtype != torch.bool:
        _check_same("mask (not bool)", mask, "q", q)
    elif mask.device != q.device:
        raise DeviceError(f"mask is on {mask.device} and q is on {q.device}: move both to one device.")
    fits = all(m in (1, s) for m, s in zip(reversed(mask.shape), reversed(shape), strict=False))
    if mask.ndim > 4 or not fits:
        raise ShapeError(f"mask {tuple(mask.shape)} does not broadcast to the scores (B, H, T, U) = {tuple(shape)}.")


def _check_lengths(lengths: Tensor, q: Tensor) -> None:
    if not isinstance(lengths, torch.Tensor):
        raise InputError(f"lengths is a {type(lengths).__name__}: give a torch.Tensor.")
    if lengths.dtype not in INDEX_DTYPES:
        raise DtypeError(f"lengths is {lengths.dtype}: give torch.int32 or torch.int64.")
    if lengths.device != q.device:
        raise DeviceError(f"lengths is on {lengths.device} and q is on {q.device}: move both to one device.")
    if lengths.shape != q.shape[:1]:
        raise ShapeError(f"lengths {tuple(lengths.shape)} must be (B,) = ({q.shape[0]},), as q {tuple(q.shape)}.")
