"""The SVD of a product right^T left without forming it: QR of both sides, SVD of the K x K core.

right^T = Q_r R_r, left^T = Q_l R_l, so right^T left = Q_r (R_r R_l^T) Q_l^T (Golub and Van Loan,
Matrix Computations, 4th ed., section 8.6). The largest matrix is a tall one, (D, K) or (E, K).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from narrows.decompose._spectrum import Spectrum

if TYPE_CHECKING:
    from narrows.decompose._operands import Scaled


def product(left: Scaled, right: Scaled) -> Spectrum:
    """Return every singular value that right^T left (E, D) can have: min(K, D, E) of them.

    Args:
        left: (K, D) or (H, K, D).
        right: (K, E) or (H, K, E).
    """
    q_left, r_left = torch.linalg.qr(left.tensor.mT)
    q_right, r_right = torch.linalg.qr(right.tensor.mT)
    core = r_right @ r_left.mT
    u, sigma, vt = torch.linalg.svd(core, full_matrices=False)
    norm = float(torch.linalg.vector_norm(core))
    return Spectrum("product", q_right @ u, sigma, vt @ q_left.mT, norm, left.exponent + right.exponent)


def product_norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return ||right^T left||_F over all heads, the large matrix never formed."""
    r_left = torch.linalg.qr(left.mT, mode="r").R
    r_right = torch.linalg.qr(right.mT, mode="r").R
    return float(torch.linalg.vector_norm(r_right @ r_left.mT))
