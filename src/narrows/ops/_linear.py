"""y = (x a^T) b: the thin chain in place of x W^T."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch.compiler import is_compiling

from narrows.kernels import LINEAR_TWO
from narrows.ops._checks import check_factors, check_linear
from narrows.ops._direct import direct_linear
from narrows.ops._library import AUTO
from narrows.ops._linear_choice import linear_kernel
from narrows.ops._linear_op import linear_op, run_linear
from narrows.ops._ready import again, first, is_plain, recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    return _run(x, factors.a, factors.b, bias, middle_bias, residual, activation, impl)


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
    return _run(x, a, b, bias, middle_bias, residual, activation, impl)


def _run(  # noqa: PLR0917 (each name costs time)
    x: Tensor,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    middle_bias: Tensor | None,
    residual: Tensor | None,
    activation: str | None,
    impl: str,
) -> Tensor:
    operands = (x, a, b, bias, middle_bias, residual)
    if bias is None and middle_bias is None and residual is None:
        given: tuple[Tensor, ...] = (x, a, b)
    else:
        given = tuple(t for t in operands if t is not None)
    call = ("linear", impl, activation, bias is None, middle_bias is None, residual is None)
    if not is_compiling() and (result := again(call, given)) is not None:
        return result
    check_linear(x, a, b, bias, activation=activation, residual=residual, middle_bias=middle_bias)
    if not is_plain(*given):
        return linear_op(*operands, activation, impl)  # type: ignore[no-any-return]
    parts = {"bias": bias, "middle_bias": middle_bias, "residual": residual}
    names = [name for name, part in parts.items() if part is not None]
    run = partial(run_linear, *operands, activation, impl)
    return first(call, given, run, partial(_prepare, given, names, activation, impl))


def _prepare(
    given: Sequence[Tensor], names: Sequence[str], activation: str | None, impl: str, run: Callable[[], Tensor]
) -> tuple[Tensor, Callable[..., Tensor | None] | None]:
    """Return the result of `run`, and what makes it again."""
    x, a, b, *_ = given
    if linear_kernel(impl, x, (a,), (b,)) is LINEAR_TWO:
        return run(), direct_linear(x, a, names, activation)
    return recorded(run, given)
