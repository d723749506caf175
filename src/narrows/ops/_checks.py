"""What operands must be, checked once at the public door; a call that is right costs comparisons only.

Letters: T tokens, U other tokens, D input, E output features, R rank, H heads.
Nothing here reads an address or a value: torch.compile and torch.export trace through it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from narrows._values import Factors
from narrows.errors import DeviceError, DtypeError, InputError, ShapeError
from narrows.kernels import ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_factors(factors: object) -> None:
    """Raise InputError for a weight, or a pair of tensors, in the place of factors."""
    if not isinstance(factors, Factors):
        raise InputError(
            f"factors is a {type(factors).__name__}: give Factors, as narrows.factorize(weight, rank=64) returns them."
        )


def check_linear(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    middle_bias: Tensor | None = None,
) -> None:
    """Raise InputError, ShapeError, DtypeError or DeviceError unless the linear chain of these operands is defined."""
    _check_same("factors.b", b, "factors.a", a)
    _check_same("x", x, "factors.a", a)
    _check_rows("x", x, a, "D", least=a.ndim - 1)
    if bias is not None:
        _check_bias("bias", bias, "E", b.shape[-1], a, b)
    if middle_bias is not None:
        _check_bias("middle_bias", middle_bias, "R", a.shape[-2], a, b)
    if activation is not None:
        check_activation(activation)
    if residual is not None:
        _check_same("residual", residual, "x", x)
        if residual.shape != linear_shape(x, a, b):
            raise ShapeError(f"residual {_sizes(residual)} must have the result's shape {linear_shape(x, a, b)}.")


def check_group(x: Tensor, factors: Sequence[Factors], biases: Sequence[Tensor | None] | None) -> None:
    """Raise unless every member's (x a^T) b + bias is defined."""
    if isinstance(factors, Factors) or not factors:
        raise InputError("factors must be a sequence of at least one Factors: for a single one use narrows.linear.")
    if biases is not None and len(biases) != len(factors):
        raise InputError(f"biases has {len(biases)} entries for {len(factors)} factors: give one each, None for none.")
    for i, member in enumerate(factors):
        check_factors(member)
        _check_headless(f"factors[{i}]", member)
        check_linear(x, member.a, member.b, None if biases is None else biases[i])


def check_gated(  # noqa: PLR0917 (of `gated_linear`)
    x: Tensor,
    gate: Factors,
    up: Factors,
    gate_bias: Tensor | None,
    up_bias: Tensor | None,
    activation: str | None,
) -> None:
    """Raise unless activation(x gate + gate_bias) * (x up + up_bias) is defined."""
    for name, member, bias in (("gate", gate, gate_bias), ("up", up, up_bias)):
        _check_headless(name, member)
        check_linear(x, member.a, member.b, bias, activation=activation)
    if gate.out_features != up.out_features:
        raise ShapeError(f"gate has E={gate.out_features} and up has E={up.out_features}: both must be the same.")


def check_activation(activation: str) -> None:
    """Raise InputError unless this is a known activation's name."""
    if activation not in ACTIVATIONS:
        raise InputError(f"activation={activation!r} is not known. Use None or one of: {', '.join(ACTIVATIONS)}.")


def _check_headless(name: str, factors: Factors) -> None:
    if factors.a.ndim != 2:
        raise ShapeError(f"{name} has heads, a {_sizes(factors.a)}: members of a group must be (R, D) and (R, E).")


def _check_bias(name: str, bias: Tensor, letter: str, size: int, a: Tensor, b: Tensor) -> None:  # noqa: PLR0917
    _check_same(name, bias, "factors.b", b)
    if bias.shape != (size,):
        raise ShapeError(f"{name} {_sizes(bias)} must be ({letter},) = ({size},) for factors {_pair(a, b)}.")


def check_numbers(**numbers: object) -> None:
    """Raise InputError for a tensor in the place of a number: its value would be read once, and its gradient lost."""
    for name, number in numbers.items():
        if isinstance(number, torch.Tensor):
            raise InputError(
                f"{name} is a Tensor of shape {_sizes(number)}: give a number, {name}=float(value); for a gradient "
                "multiply x or the result."
            )


def check_bilinear(  # noqa: PLR0917 (those of the operation, in its order)
    x: Tensor, a: Tensor, b: Tensor, y: Tensor | None, mask: Tensor | None, softcap: float | None
) -> None:
    """Raise ShapeError, DtypeError, DeviceError or InputError unless (x a^T)(y b^T)^T, capped, + mask is defined."""
    _check_same("factors.b", b, "factors.a", a)
    _check_same("x", x, "factors.a", a)
    _check_rows("x", x, a, "D", least=2)
    if y is not None:
        _check_same("y", y, "factors.b", b)
        _check_rows("y", y, b, "E", least=2)
        if not _broadcasts(x.shape[:-2], y.shape[:-2]):
            raise ShapeError(f"x {_sizes(x)} and y {_sizes(y)} have leading dimensions that do not broadcast.")
    elif a.shape[-1] != b.shape[-1]:
        raise ShapeError(
            f"Y = X needs D = E, but factors {_pair(a, b)} have D={a.shape[-1]}, E={b.shape[-1]}. "
            f"Pass y (..., U, {b.shape[-1]})."
        )
    if mask is not None:
        _check_mask(mask, x, bilinear_shape(x, a, y))
    if softcap is not None and not 0 < softcap < math.inf:
        raise InputError(f"softcap={softcap} must be finite and above 0: scores then stay within -softcap..softcap.")


def linear_shape(x: Tensor, a: Tensor, b: Tensor) -> tuple[int, ...]:
    """Return the shape of a linear result, (..., [H,] T, E)."""
    if a.ndim == 2:
        return (*x.shape[:-1], b.shape[-1])
    return (*broadcast(x.shape[:-2], a.shape[:-2]), x.shape[-2], b.shape[-1])


def bilinear_shape(x: Tensor, a: Tensor, y: Tensor | None) -> tuple[int, ...]:
    """Return the shape of a bilinear result, (..., [H,] T, U)."""
    other = x if y is None else y
    lead = broadcast(broadcast(x.shape[:-2], a.shape[:-2]), other.shape[:-2])
    return (*lead, x.shape[-2], other.shape[-2])


def _check_same(name: str, tensor: Tensor, against: str, other: Tensor) -> None:
    """Raise unless both share device (torch.mm of cpu and meta gives garbage without an error) and dtype."""
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"{name} is a {type(tensor).__name__}: give a torch.Tensor.")
    if tensor.device != other.device:
        raise DeviceError(f"{name} is on {tensor.device} and {against} is on {other.device}: move both to one device.")
    if tensor.dtype != other.dtype and not _autocast_unites(tensor, other):
        raise DtypeError(
            f"{name} is {tensor.dtype} and {against} is {other.dtype}: give both the same dtype, one of "
            "float32, bfloat16, float16, float64."
        )


def _autocast_unites(left: Tensor, right: Tensor) -> bool:
    """Return whether autocast will cast both to its dtype; it leaves float64 and what is not floating alone."""
    kind = left.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return False
    return all(t.dtype in _FLOATING and t.dtype != torch.float64 for t in (left, right))


def _check_rows(name: str, tensor: Tensor, weight: Tensor, letter: str, *, least: int) -> None:
    """Raise unless `tensor` is (..., rows, features) with the weight's features and heads."""
    if tensor.ndim < least:
        raise ShapeError(f"{name} {_sizes(tensor)} needs at least {least} dimensions, (..., tokens, {letter}).")
    if tensor.shape[-1] != weight.shape[-1]:
        raise ShapeError(
            f"{name} {_sizes(tensor)} has {tensor.shape[-1]} features (last dimension), the factors "
            f"{_sizes(weight)} have {letter}={weight.shape[-1]}."
        )
    if weight.ndim == 3 and tensor.ndim > 2 and not _broadcasts(tensor.shape[-3:-2], weight.shape[:1]):
        raise ShapeError(
            f"{name} {_sizes(tensor)} has {tensor.shape[-3]} in the place of the heads, the factors {_sizes(weight)} "
            f"have H={weight.shape[0]}. If it is a batch that all heads share, pass {name}.unsqueeze(-3)."
        )


def _check_mask(mask: Tensor, x: Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(mask, torch.Tensor):
        raise InputError(f"mask is a {type(mask).__name__}: give a torch.Tensor.")
    if mask.dtype == torch.bool:
        if mask.device != x.device:
            raise DeviceError(f"mask is on {mask.device} and x is on {x.device}: move both to one device.")
    else:
        _check_same("mask (not bool)", mask, "x", x)
    if mask.ndim > len(shape) or not all(
        m in (1, s) for m, s in zip(reversed(mask.shape), reversed(shape), strict=False)
    ):
        raise ShapeError(f"mask {_sizes(mask)} does not broadcast to the scores {tuple(shape)}.")


def _broadcasts(left: Sequence[int], right: Sequence[int]) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(left), reversed(right), strict=False))


def broadcast(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    """Return the common shape of two that broadcast."""
    if len(left) < len(right):
        left, right = right, left
    start = len(left) - len(right)
    return (*left[:start], *(n if m == 1 else m for m, n in zip(left[start:], right, strict=True)))


def _sizes(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _pair(a: Tensor, b: Tensor) -> str:
    return f"a {_sizes(a)}, b {_sizes(b)}"
