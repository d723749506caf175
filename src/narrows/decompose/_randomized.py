"""Randomized SVD with subspace iteration, and a bound on how far from the best it is.

Halko, Martinsson and Tropp, SIAM Review 53 (2011), algorithms 4.4 and 5.1: a Gaussian sketch of
the range, `ITERATIONS` times W W^T with a QR after every product, the SVD of the small Q^T W.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from narrows.decompose._spectrum import Spectrum

if TYPE_CHECKING:
    from narrows.decompose._operands import Scaled

OVERSAMPLING = 10
ITERATIONS = 4
PROBES = 10
POWERS = 16


def randomized(weight: Scaled, rank: int, *, seed: int = 0) -> Spectrum:
    """Return the first `rank` approximate singular values and vectors of a weight (E, D) or (H, E, D).

    The values are those of Q^T W with Q orthonormal, so the error of every rank up to `rank` is
    theirs by Pythagoras, exactly; `distance` bounds its ratio to the smallest possible error.

    Args:
        seed: of the sketch. It is drawn on the CPU, so every device sees the same one.
    """
    w = weight.tensor
    generator = torch.Generator().manual_seed(seed)
    u, sigma, vt = _sketched_svd(w, min(rank + OVERSAMPLING, *w.shape[-2:]), generator)
    u_r, sigma_r, vt_r = u[..., :rank], sigma[..., :rank], vt[..., :rank, :]
    errors_H = torch.linalg.matrix_norm(w - (u_r * sigma_r[..., None, :]) @ vt_r)
    best_H = _smallest_error(w, u, sigma, vt, rank, errors_H, generator)
    norm, error = float(torch.linalg.vector_norm(w)), float(torch.linalg.vector_norm(errors_H))
    tail = error / norm if norm else 0.0
    return Spectrum(
        "randomized",
        u_r,
        sigma_r,
        vt_r,
        norm,
        weight.exponent,
        tail,
        distance=_distance(error, float(torch.linalg.vector_norm(best_H)), rounding=max(w.shape) * 2.0**-53 * norm),
    )


def _sketched_svd(
    w: torch.Tensor, width: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    sketch = torch.randn(w.shape[-1], width, generator=generator, dtype=w.dtype).to(w.device)
    q = torch.linalg.qr(w @ sketch).Q
    for _ in range(ITERATIONS):
        q = torch.linalg.qr(w.mT @ q).Q
        q = torch.linalg.qr(w @ q).Q
    u, sigma, vt = torch.linalg.svd(q.mT @ w, full_matrices=False)
    return q @ u, sigma, vt


def _distance(error: float, best: float, *, rounding: float) -> float:
    """Return error / best; 1 where the error is rounding, inf where nothing is known of the best."""
    if error <= 10 * rounding:
        return 1.0
    return max(1.0, error / best) if best > 0 else math.inf


def _smallest_error(  # noqa: PLR0917 (the pieces of one decomposition)
    w: torch.Tensor,
    u: torch.Tensor,
    sigma: torch.Tensor,
    vt: torch.Tensor,
    rank: int,
    errors_H: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return, for each head, a lower bound of the error tau of the best rank-`rank` matrix.

    The larger of two bounds:

    1. The oversampled values: sigma_i(Q^T W) <= sigma_i(W), so tau^2 >= sum of their squares
       beyond `rank`. Tight where the spectrum falls fast.
    2. In the bases of the kept vectors U, V and their complements, W = [[S, 0], [F, G]] with
       F = W V - U S (measured) and G = W (I - V V^T). tau is 1-Lipschitz in the Frobenius norm
       (Mirsky), so tau >= tau(diag(S, G)) - ||F||; and with h >= ||G||_2 (see `_spectral_bound`)
       tau(diag(S, G))^2 >= ||G||^2 - sum of max(h^2 - sigma_i^2, 0). Tight where it falls slowly
       and the sketch has converged; holds with a probability of at least 1 - 1e-10.
    """
    oversampled_H = torch.linalg.vector_norm(sigma[..., rank:], dim=-1)
    v = vt[..., :rank, :].mT
    leak_H = torch.linalg.matrix_norm(w @ v - u[..., :rank] * sigma[..., None, :rank])
    bound_H = _spectral_bound(w, v, generator)
    swapped_H = (bound_H[..., None] ** 2 - sigma[..., :rank] ** 2).clamp(min=0).sum(dim=-1)
    rest_H = (errors_H**2 - leak_H**2 - swapped_H).clamp(min=0).sqrt()
    return torch.maximum(oversampled_H, rest_H - leak_H)


def _spectral_bound(w: torch.Tensor, v: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return, for each head, h >= ||G||_2 for G = W (I - V V^T), with probability >= 1 - 1e-10.

    For a Gaussian probe g, ||(G^T G)^p g|| >= ||G||^(2p) |N(0, 1)|. All `PROBES` = 10 normals are
    below 0.1 with probability 0.0797^10 = 1.03e-11, so (largest / 0.1)^(1 / 2p) is an upper bound.
    """
    x = torch.randn(w.shape[-1], PROBES, generator=generator, dtype=w.dtype).to(w.device)
    x = x.expand(*w.shape[:-2], *x.shape)
    log_scale = x.new_zeros(w.shape[:-2])
    for _ in range(POWERS):
        x = w.mT @ (w @ (x - v @ (v.mT @ x)))
        x = x - v @ (v.mT @ x)
        size = torch.linalg.vector_norm(x, dim=-2).amax(dim=-1).clamp(min=torch.finfo(x.dtype).tiny)
        x, log_scale = x / size[..., None, None], log_scale + size.log()
    return ((log_scale - math.log(0.1)) / (2 * POWERS)).exp()
