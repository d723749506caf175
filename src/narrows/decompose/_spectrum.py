"""What every method hands over: singular vectors and values of the scaled weight, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from narrows._values import Certificate, Factors, Method
from narrows.errors import NonFiniteError


@dataclass(frozen=True)
class Spectrum:
    """weight / 4**exponent ~ u diag(sigma) vt, all float64, heads leading where there are heads.

    Attributes:
        u: (E, K) or (H, E, K); vt: (K, D) or (H, K, D); sigma: (K,) or (H, K), falling.
        norm: ||weight / 4**exponent||_F over all heads.
        tail: ||the part beyond the K values|| / norm; 0 when they are all there are.
        distance: upper bound of (its error / the smallest possible error); None for exact methods.
    """

    method: Method
    u: torch.Tensor
    sigma: torch.Tensor
    vt: torch.Tensor
    norm: float
    exponent: int
    tail: float = 0.0
    distance: float | None = None

    def certificate(self) -> Certificate:
        """Return the error of every rank, as yet without residual and time.

        Raises:
            NonFiniteError: the weight's norm is beyond float64 (entries near 1e308).
        """
        norm = self.norm * 4.0**self.exponent
        if not math.isfinite(norm):
            raise NonFiniteError("the norm of the weight overflows float64: divide the weight by a power of two first.")
        sigma_HK = self.sigma.reshape(-1, self.sigma.shape[-1]) * 4.0**self.exponent
        values = tuple(tuple(row) for row in sigma_HK.tolist())
        return Certificate(self.method, values, norm, residual=math.nan, tail=self.tail, distance=self.distance)

    def factors(self, rank: int, dtype: torch.dtype) -> Factors:
        """Return the first `rank` ranks, split evenly: a = sqrt(S) V^T, b = sqrt(S) U^T, rounded once.

        An even split has the smallest rounding error bound of all splits (Cauchy-Schwarz), and
        the two factors have the same range. With D = E the rows of a and b alternate in memory.
        """
        root = (self.sigma[..., :rank].sqrt() * 2.0**self.exponent)[..., None]
        a = root * self.vt[..., :rank, :]
        b = root * self.u[..., :rank].mT
        if a.shape == b.shape:
            pair = torch.stack((a, b), dim=-2).to(dtype)
            return Factors(pair[..., 0, :], pair[..., 1, :])
        return Factors(a.to(dtype).contiguous(), b.to(dtype).contiguous())
