"""The full SVD of a weight, LAPACK's or cuSOLVER's, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from narrows.decompose._spectrum import Spectrum

if TYPE_CHECKING:
    from narrows.decompose._operands import Scaled


def exact(weight: Scaled) -> Spectrum:
    """Return every singular value and vector of a weight (E, D) or (H, E, D)."""
    u, sigma, vt = torch.linalg.svd(weight.tensor, full_matrices=False)
    norm = float(torch.linalg.vector_norm(weight.tensor))
    return Spectrum("exact", u, sigma, vt, norm, weight.exponent)
