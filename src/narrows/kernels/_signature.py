"""The signature by which a call's implementation and sizes are looked up."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch

from narrows.kernels.tuned import Signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

NAMES = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float64: "float64",
}


def bilinear_signature(x: Tensor, a: Tensor, b: Tensor, y: Tensor | None) -> Signature:
    """Return the signature of scores of x (..., T, D), a ([H,] R, D), b ([H,] R, E) and y (..., U, E) or x itself."""
    is_captured = x.is_cuda and torch.cuda.is_current_stream_capturing()
    return Signature(
        "bilinear",
        prod(x.shape[:-1]),
        0 if y is None else prod(y.shape[:-1]),
        a.shape[-1],
        b.shape[-1],
        a.shape[-2],
        a.shape[0] if a.ndim == 3 else 1,
        NAMES[x.dtype],
        "graph" if is_captured else "eager",
        x.device.index or 0,
    )


def linear_signature(x: Tensor, a: Sequence[Tensor], b: Sequence[Tensor]) -> Signature:
    """Return the signature of x (..., T, D) through a ([H,] R, D) and b ([H,] R, E).

    Several members that share x count as one, with their ranks and their outputs together.
    """
    is_captured = x.is_cuda and torch.cuda.is_current_stream_capturing()
    return Signature(
        "linear",
        prod(x.shape[:-1]),
        0,
        x.shape[-1],
        sum(b_RE.shape[-1] for b_RE in b),
        sum(a_RD.shape[-2] for a_RD in a),
        a[0].shape[0] if a[0].ndim == 3 else 1,
        NAMES[x.dtype],
        "graph" if is_captured else "eager",
        x.device.index or 0,
    )
