"""Which implementation runs a bilinear call, and with which sizes."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

import torch

from narrows._values import Problem
from narrows.kernels import OWN_BILINEAR, bilinear_signature, kernel
from narrows.kernels.triton._persistent import BilinearPersistent
from narrows.kernels.tuned import config, implementation
from narrows.ops._library import AUTO

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Factors
    from narrows.kernels import Epilogue, Kernel
    from narrows.kernels._config import Config
    from narrows.kernels.triton._bilinear import BilinearTriton


def own_kernel(
    impl: str, x: Tensor, factors: Factors, y: Tensor | None, epilogue: Epilogue
) -> tuple[BilinearTriton | BilinearPersistent, Config] | None:
    """Return the own kernels that run this call and their sizes; None where torch's matmuls run it.

    Args:
        impl: a name, or "auto": the fastest that was measured for these sizes on a CUDA device.
        x, factors, y: as in `narrows.bilinear`.
        epilogue: of the scores.

    Raises:
        ImplementationError: a named implementation cannot run this.
    """
    a, b = factors.a, factors.b
    if impl == AUTO:
        if not x.is_cuda or x.dtype == torch.float64 or _is_batched(x, y):
            return None  # only single matrices of scores are measured
        signature = bilinear_signature(x, a, b, y)
        chosen = OWN_BILINEAR.get(implementation(signature))
        if isinstance(chosen, BilinearPersistent) and chosen.refuses_call(x, factors, y, epilogue):
            return None
    else:
        chosen = OWN_BILINEAR.get(impl)
        if chosen is None:
            return None
        named_kernel(impl, x, a, b, y)
        signature = bilinear_signature(x, a, b, y)
    return None if chosen is None else (chosen, config(chosen.name, signature))


def named_kernel(impl: str, x: Tensor, a: Tensor, b: Tensor, y: Tensor | None) -> Kernel:
    """Return the implementation of this name, which can run this call.

    Raises:
        ImplementationError: it does not exist or cannot run this.
    """
    heads = a.shape[0] if a.ndim == 3 else 1
    others = None if y is None else prod(y.shape[:-1])
    return _named(impl, prod(x.shape[:-1]), others, heads, a.shape[-1], b.shape[-1], x.dtype, x.device)


@lru_cache(maxsize=1024)
def _named(  # noqa: PLR0917 (a cache's key)
    impl: str,
    tokens: int,
    other_tokens: int | None,
    heads: int,
    in_features: int,
    out_features: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Kernel:
    problem = Problem(
        "bilinear",
        tokens,
        in_features,
        out_features,
        other_tokens=other_tokens,
        heads=heads,
        dtype=str(dtype),
        device=str(device),
    )
    return kernel("bilinear", impl, problem)


def _is_batched(x: Tensor, y: Tensor | None) -> bool:
    """Return whether there is more than one x or y."""
    return any(t is not None and t.ndim > 2 and prod(t.shape[:-2]) > 1 for t in (x, y))
