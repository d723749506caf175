"""y = (x a^T) b: the thin chain in place of x W^T."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from narrows.ops._checks import check_factors, check_linear
from narrows.ops._library import AUTO
from narrows.ops._linear_op import linear_op, run_linear
from narrows.ops._ready import again, first, is_plain, layout

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Factors


def linear(
    x: Tensor,
    factors: Factors,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    middle_bias: Tensor | None = None,
    impl: str = AUTO,
) -> Tensor:
    """Return activation((x a^T + middle_bias) b + bias) + residual, (..., T, E), or (..., H, T, E) with heads.

    Differentiable in every tensor; works under torch.compile(fullgraph=True),
    torch.export, torch.autocast, inference_mode and FlopCounterMode, as one operation. The
    backward pass computes x a^T again, and with an activation what it was applied to, instead of
    keeping them. torch.func.vmap has no rule of its own and runs element by element: use leading
    dimensions.

    Args:
        x: (..., T, D); zero tokens are valid. Leading dimensions broadcast as in torch.matmul:
            with heads, x (B, T, D) must be passed as (B, 1, T, D).
        factors: a (R, D), b (R, E), or with heads a (H, R, D), b (H, R, E); any strides, so a
            truncated view is not copied.
        bias: (E,), added within the second matmul.
        activation: None, "relu", "silu", "gelu" (exact) or "gelu_tanh", as torch has them.
        residual: of the result's shape; added after the activation.
        middle_bias: (R,), of the rank of these factors: for `factors.truncate(r)` pass `middle_bias[:r]`.
        impl: "auto" (on a CPU "two", on a CUDA device the fastest one measured), or an
            implementation's name; a named one never falls back.

    Raises:
        ShapeError, DtypeError, DeviceError: operands do not fit together.
        InputError: an operand is not a tensor, `factors` no Factors, or no such activation.
        ImplementationError: the named implementation does not exist or cannot run this.
    """
    check_factors(factors)
    return linear_tensors(
        x,
        factors.a,
        factors.b,
        bias,
        activation=activation,
        residual=residual,
        middle_bias=middle_bias,
        impl=impl,
    )


def linear_tensors(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    middle_bias: Tensor | None = None,
    impl: str = AUTO,
) -> Tensor:
    """Return what `linear` returns, for factors given as two tensors."""
    operands = (x, a, b, bias, middle_bias, residual)
    if not is_plain(*operands):
        check_linear(x, a, b, bias, activation=activation, residual=residual, middle_bias=middle_bias)
        return linear_op(*operands, activation, impl)  # type: ignore[no-any-return]
    # a and b may lie in one block, their rows in turn.
    key = ("linear", impl, activation, b.data_ptr() - a.data_ptr(), *map(layout, operands))
    given = [t for t in operands if t is not None]
    result = again(key, given)
    if result is not None:
        return result
    check_linear(x, a, b, bias, activation=activation, residual=residual, middle_bias=middle_bias)
    return first(key, partial(run_linear, *operands, activation, impl), given, tied=(1, 2))
