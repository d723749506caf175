"""Which implementation runs a bilinear call, and with which sizes."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

import torch

from narrows._values import Problem
from narrows.errors import ImplementationError
from narrows.kernels import OWN_BILINEAR, bilinear_signature, kernel
from narrows.kernels.triton._persistent import BilinearPersistent
from narrows.kernels.tuned import config, generation, implementation
from narrows.ops._library import AUTO

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Factors
    from narrows.kernels import Epilogue, Kernel
    from narrows.kernels._config import Config
    from narrows.kernels.triton._bilinear import BilinearTriton
    from narrows.kernels.tuned import Signature


MOST_PREPARED = 1024
_prepared: set[tuple[object, ...]] = set()


def own_kernel(  # noqa: PLR0917 (of the operation)
    impl: str, x: Tensor, factors: Factors, y: Tensor | None, epilogue: Epilogue, mode: str | None = None
) -> tuple[BilinearTriton | BilinearPersistent, Config] | None:
    """Return the own kernels that run this call and their sizes; None where torch's matmuls run it.

    Args:
        impl: a name, or "auto": the fastest that was measured for these sizes on a CUDA device.
        x, factors, y: as in `narrows.bilinear`.
        epilogue: of the scores.
        mode: "graph" or "eager"; default: as the current stream is captured or not.

    Raises:
        ImplementationError: a named implementation cannot run this.
    """
    a, b = factors.a, factors.b
    if impl == AUTO:
        if not x.is_cuda or x.dtype == torch.float64 or _is_batched(x, y):
            return None  # only single matrices of scores are measured
        signature = _signature(x, a, b, y, mode)
        chosen = OWN_BILINEAR.get(implementation(signature))
        if isinstance(chosen, BilinearPersistent) and chosen.refuses_call(x, factors, y, epilogue):
            return None
    else:
        chosen = OWN_BILINEAR.get(impl)
        if chosen is None:
            return None
        named_kernel(impl, x, a, b, y)
        signature = _signature(x, a, b, y, mode)
    return None if chosen is None else (chosen, config(chosen.name, signature))


def prepare_capture(impl: str, x: Tensor, factors: Factors, y: Tensor | None, epilogue: Epilogue) -> None:
    """Run, once for each layout, what a captured call would run: while a graph is captured nothing can be compiled."""
    if not x.is_cuda or torch.cuda.is_current_stream_capturing():
        return
    tensors = (x, factors.a, factors.b, y, epilogue.mask)
    key = (
        impl,
        *(None if t is None else (t.shape, t.stride(), t.dtype, t.device) for t in tensors),
        epilogue.scale is None,
        epilogue.softcap is None,
        epilogue.is_causal,
        generation(),
    )
    if key in _prepared:
        return
    if len(_prepared) >= MOST_PREPARED:
        _prepared.clear()
    _prepared.add(key)
    # Sizes that fail their check, or do not fit: a captured call says so itself.
    with suppress(ImplementationError, torch.OutOfMemoryError):
        own = own_kernel(impl, x, factors, y, epilogue, "graph")
        if own is not None and own != own_kernel(impl, x, factors, y, epilogue):
            own[0].run_with(own[1], x, factors, y, epilogue=epilogue)


def _signature(x: Tensor, a: Tensor, b: Tensor, y: Tensor | None, mode: str | None) -> Signature:
    signature = bilinear_signature(x, a, b, y)
    return signature if mode is None else signature._replace(mode=mode)


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
