"""S = (x a^T)(y b^T)^T: the thin chain in place of x W^T y^T."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch.compiler import is_compiling

from narrows._values import Factors
from narrows.kernels import Epilogue
from narrows.ops._bilinear_choice import own_kernel
from narrows.ops._bilinear_op import bilinear_op, run_bilinear
from narrows.ops._checks import check_bilinear, check_factors, check_numbers
from narrows.ops._direct import direct_bilinear
from narrows.ops._library import AUTO
from narrows.ops._ready import again, first, is_plain, recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


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
    return _run(x, factors.a, factors.b, y, scale, softcap, mask, causal, impl)


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
    return _run(x, a, b, y, scale, softcap, mask, causal, impl)


def _run(  # noqa: PLR0917 (each name costs time)
    x: Tensor,
    a: Tensor,
    b: Tensor,
    y: Tensor | None,
    scale: float | None,
    softcap: float | None,
    mask: Tensor | None,
    causal: bool,
    impl: str,
) -> Tensor:
    if y is None and mask is None:
        given: tuple[Tensor, ...] = (x, a, b)
    else:
        given = tuple(t for t in (x, a, b, y, mask) if t is not None)
    call = ("bilinear", impl, scale, softcap, causal, y is None, mask is None)
    if not is_compiling() and (result := again(call, given)) is not None:
        return result
    check_numbers(scale=scale, softcap=softcap)
    check_bilinear(x, a, b, y, mask, softcap)
    if not is_plain(*given):
        return bilinear_op(x, a, b, y, scale, softcap, mask, causal, impl)  # type: ignore[no-any-return]
    run = partial(run_bilinear, x, a, b, y, scale, softcap, mask, causal, impl)
    prepare = partial(_prepare, given, y, Epilogue(scale, softcap, mask, causal), impl)
    return first(call, given, run, prepare)


def _prepare(
    given: Sequence[Tensor], y: Tensor | None, epilogue: Epilogue, impl: str, run: Callable[[], Tensor]
) -> tuple[Tensor, Callable[..., Tensor | None] | None]:
    """Return the result of `run`, and what makes it again."""
    x, a, b, *_ = given
    if own_kernel(impl, x, Factors(a, b), y, epilogue) is None:
        return run(), direct_bilinear(x, a, b, y, epilogue=epilogue, impl=impl)
    return recorded(run, given)
