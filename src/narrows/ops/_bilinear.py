"""S = (x a^T)(y b^T)^T: the thin chain in place of x W^T y^T."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from narrows.ops._bilinear_op import bilinear_op, run_bilinear
from narrows.ops._checks import check_bilinear, check_factors, check_numbers
from narrows.ops._library import AUTO
from narrows.ops._ready import again, first, is_plain, layout

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Factors


def bilinear(
    x: Tensor,
    factors: Factors,
    y: Tensor | None = None,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    impl: str = AUTO,
) -> Tensor:
    """Return scale (x a^T)(y b^T)^T, capped and masked, (..., T, U), or (..., H, T, U) for factors with heads.

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
        scale: multiplies the scores, first; None: 1.
        softcap: above 0: s -> softcap tanh(s / softcap), after the scale and before the mask (Gemma's order).
        mask: broadcasts to the result. bool: True takes part, False becomes -inf; floating: added.
        causal: position u of y takes part for t of x only where u <= t, both counted from 0 (the upper-left
            alignment of torch's is_causal); the rest becomes -inf.
        impl: "auto", or a name; a named implementation never falls back. "auto" takes on a CUDA device
            what was measured fastest there, on a CPU "two" for Y = X and interleaved factors, else "three".
            "two" and "three" are matmuls of torch, which round the scores before the epilogue;
            "triton" is one chain of own kernels on CUDA devices that rounds once, after it, and gives
            the same bits in every run.

    Raises:
        ShapeError, DtypeError, DeviceError: operands do not fit together.
        InputError: an operand is not a tensor, `factors` no Factors, or `softcap` not above 0.
        ImplementationError: the named implementation does not exist or cannot run this.
    """
    check_factors(factors)
    return bilinear_tensors(
        x, factors.a, factors.b, y, scale=scale, softcap=softcap, mask=mask, causal=causal, impl=impl
    )


def bilinear_tensors(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    y: Tensor | None = None,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    impl: str = AUTO,
) -> Tensor:
    """Return what `bilinear` returns, for factors given as two tensors."""
    check_numbers(scale=scale, softcap=softcap)
    operands = (x, a, b) if y is None else (x, a, b, y)
    if mask is not None or not is_plain(*operands):
        check_bilinear(x, a, b, y, mask, softcap)
        return bilinear_op(x, a, b, y, scale, softcap, mask, causal, impl)  # type: ignore[no-any-return]
    # The distance tells whether the rows of a and b alternate in memory.
    distance = b.data_ptr() - a.data_ptr()
    key = ("bilinear", impl, scale, softcap, causal, distance, *map(layout, operands))
    result = again(key, operands)
    if result is not None:
        return result
    check_bilinear(x, a, b, y, mask, softcap)
    call = partial(run_bilinear, x, a, b, y, scale, softcap, mask, causal, impl)
    return first(key, call, operands, tied=(1, 2))
