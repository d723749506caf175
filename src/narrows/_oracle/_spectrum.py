"""What an SVD truncation must reach: the Eckart-Young tail, within LAPACK's kind of tolerance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from narrows._oracle._arithmetic import ROUNDOFF

if TYPE_CHECKING:
    from collections.abc import Sequence

# The largest constant seen over 16 kinds of matrices up to 384 x 384 was 1.17; LAPACK's own test
# suite allows 50.
SVD_CONSTANT = 10


def optimal_tail(sigma: Sequence[float] | torch.Tensor, rank: int) -> float:
    """Return sqrt(sum of sigma_i^2 for i > rank), the Frobenius error of the best rank-`rank` matrix.

    Summed smallest first: ||W||^2 minus the head would cancel.

    Args:
        sigma: singular values, falling, one matrix.
        rank: 0..len(sigma).
    """
    values = np.asarray(sigma.detach().cpu() if isinstance(sigma, torch.Tensor) else sigma, dtype=np.float64)
    tail = values[rank:][::-1]
    scale = float(tail[-1]) if tail.size and tail[-1] > 0 else 1.0
    return scale * float(np.sqrt(np.cumsum((tail / scale) ** 2)[-1])) if tail.size else 0.0


def svd_tolerance(weight: torch.Tensor) -> float:
    """Return 10 max(m, n) u ||W||_F: how far an error may lie from `optimal_tail`.

    u is the unit roundoff of the weight's dtype: it covers the rounding of the stored factors.
    """
    norm = float(torch.linalg.vector_norm(weight.detach().to(torch.float64)))
    return SVD_CONSTANT * max(weight.shape[-2:]) * ROUNDOFF[weight.dtype] * norm
