"""Which implementation runs a linear call."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

from narrows._values import Problem
from narrows.kernels import LINEAR_TWO, kernel, linear_signature
from narrows.kernels.tuned import implementation
from narrows.ops._library import AUTO
from narrows.ops._problem import problem_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from narrows.kernels import LinearKernel


def linear_kernel(impl: str, x: Tensor, a: Sequence[Tensor], b: Sequence[Tensor]) -> LinearKernel:
    """Return the implementation that runs x through these factors: one pair, or several that share x.

    Args:
        impl: "auto": on a CPU "two", on a CUDA device the fastest one measured; or a name.
        a, b: (R, D) and (R, E), or with heads (H, R, D) and (H, R, E), of every member.

    Raises:
        ImplementationError: the named implementation does not exist or cannot run this.
    """
    if impl != AUTO:
        tokens, kind = prod(x.shape[:-1]), (x.dtype, x.device)
        every = [_named(impl, tokens, a_RD.shape, b_RE.shape[-1], *kind) for a_RD, b_RE in zip(a, b, strict=True)]
        return every[0]
    if not x.is_cuda:
        return LINEAR_TWO
    return kernel("linear", implementation(linear_signature(x, a, b)))


def check_kernel_name(impl: str, x: Tensor, a: Sequence[Tensor], b: Sequence[Tensor]) -> None:
    """Raise ImplementationError where a named implementation cannot run this; sizes may be symbolic."""
    if impl != AUTO:
        for a_RD, b_RE in zip(a, b, strict=True):
            kernel("linear", impl, problem_of("linear", x, a_RD, b_RE, None))


@lru_cache(maxsize=1024)
def _named(  # noqa: PLR0917 (a cache's key)
    impl: str, tokens: int, a: tuple[int, ...], out_features: int, dtype: torch.dtype, device: torch.device
) -> LinearKernel:
    """Return the named implementation, which does not refuse these sizes; a: ([H,] R, D)."""
    *heads, _, in_features = a
    problem = Problem(
        "linear",
        tokens,
        in_features,
        out_features,
        heads=heads[0] if heads else 1,
        dtype=str(dtype),
        device=str(device),
    )
    return kernel("linear", impl, problem)
