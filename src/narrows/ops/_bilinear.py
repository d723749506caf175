"""S = (x a^T)(y b^T)^T: the thin chain in place of x W^T y^T."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.ops._checks import check_bilinear, check_factors
from narrows.ops._register import AUTO, bilinear_op

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Factors


def bilinear(
    x: Tensor,
    factors: Factors,
    y: Tensor | None = None,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    impl: str = AUTO,
) -> Tensor:
    """Return scale (x a^T)(y b^T)^T + mask, (..., T, U), or (..., H, T, U) for factors with heads.

    Differentiable in x, y, the factors and a float mask; works under torch.compile(fullgraph=True),
    torch.export, torch.autocast, inference_mode and FlopCounterMode, as one operation. The
    backward pass computes both projections again instead of keeping them. torch.func.vmap
    has no rule of its own and runs element by element: use leading dimensions.

    Args:
        x: (..., T, D); zero tokens are valid. Leading dimensions broadcast as in torch.matmul:
            with heads, x (B, T, D) must be passed as (B, 1, T, D).
        factors: a (R, D), b (R, E), or with heads a (H, R, D), b (H, R, E). With D = E and
            `factors.interleaved()`, Y = X reads x once.
        y: (..., U, E); None: Y = X, which needs D = E.
        scale: multiplies the scores, before the mask; None: 1.
        mask: broadcasts to the result. bool: True takes part, False becomes -inf; floating: added.
        impl: "auto" ("two" for Y = X and interleaved factors, else "three"), or a name; a named
            implementation never falls back.

    Raises:
        ShapeError, DtypeError, DeviceError: operands do not fit together.
        InputError: an operand is not a tensor, or `factors` no Factors.
        ImplementationError: the named implementation does not exist or cannot run this.
    """
    check_factors(factors)
    return bilinear_tensors(x, factors.a, factors.b, y, scale=scale, mask=mask, impl=impl)


def bilinear_tensors(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    y: Tensor | None = None,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    impl: str = AUTO,
) -> Tensor:
    """Return what `bilinear` returns, for factors given as two tensors."""
    check_bilinear(x, a, b, y, mask)
    return bilinear_op(x, a, b, y, scale, mask, impl)  # type: ignore[no-any-return]
