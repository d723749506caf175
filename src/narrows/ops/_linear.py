"""y = (x a^T) b: the thin chain in place of x W^T."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.ops._checks import check_factors, check_linear
from narrows.ops._register import AUTO, linear_op

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Factors


def linear(x: Tensor, factors: Factors, bias: Tensor | None = None, *, impl: str = AUTO) -> Tensor:
    """Return (x a^T) b + bias, (..., T, E), or (..., H, T, E) for factors with heads.

    Differentiable in x, the factors and the bias; works under torch.compile(fullgraph=True),
    torch.export, torch.autocast, inference_mode and FlopCounterMode, as one operation. The
    backward pass computes x a^T again instead of keeping it. torch.func.vmap
    has no rule of its own and runs element by element: use leading dimensions.

    Args:
        x: (..., T, D); zero tokens are valid. Leading dimensions broadcast as in torch.matmul:
            with heads, x (B, T, D) must be passed as (B, 1, T, D).
        factors: a (R, D), b (R, E), or with heads a (H, R, D), b (H, R, E); any strides, so a
            truncated view is not copied.
        bias: (E,), added within the second matmul.
        impl: "auto", or an implementation's name; a named one never falls back.

    Raises:
        ShapeError, DtypeError, DeviceError: operands do not fit together.
        InputError: an operand is not a tensor, or `factors` no Factors.
        ImplementationError: the named implementation does not exist or cannot run this.
    """
    check_factors(factors)
    return linear_tensors(x, factors.a, factors.b, bias, impl)


def linear_tensors(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None, impl: str = AUTO) -> Tensor:
    """Return what `linear` returns, for factors given as two tensors."""
    check_linear(x, a, b, bias)
    return linear_op(x, a, b, bias, impl)  # type: ignore[no-any-return]
