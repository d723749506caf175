"""Hard matrices for factorisations: every way in which a spectrum or a scale can be unkind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def gallery(size: int = 32, *, seed: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, float64 matrix) of `size` rows, reproducible from the seed.

    Args:
        size: n, at least 8. "tall" is 3n x n, "wide" n x 3n, "row" 1 x n, the others n x n.
    """
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(1, size + 1, dtype=torch.float64)
    gaussian = torch.randn(size, size, generator=generator, dtype=torch.float64)
    yield from _plain(size, gaussian, generator)
    for name, sigma in _spectra(index).items():
        yield name, _with_spectrum(sigma, generator)
    yield "hilbert", 1 / (index[:, None] + index[None, :] - 1)
    yield "kahan", _kahan(size)
    yield "graded rows", torch.logspace(0, -8, size, dtype=torch.float64)[:, None] * gaussian
    outlier = gaussian.clone()
    outlier[size // 2, size // 3] = 1e4
    yield "outlier", outlier
    yield "scaled up", gaussian * 2.0**60
    yield "scaled down", gaussian * 2.0**-60
    shapes = {"tall": (3 * size, size), "wide": (size, 3 * size), "row": (1, size), "column": (size, 1)}
    for name, shape in shapes.items():
        yield name, torch.randn(*shape, generator=generator, dtype=torch.float64)


def _plain(size: int, gaussian: torch.Tensor, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    identity = torch.eye(size, dtype=torch.float64)
    yield "zero", torch.zeros_like(identity)
    yield "identity", identity
    yield "ones", torch.ones_like(identity)
    yield "rank one", gaussian[:, :1] @ gaussian[:1]
    yield "permutation", identity[torch.randperm(size, generator=generator)]
    yield "gaussian", gaussian
    yield "rank deficient", gaussian[:, : size // 4] @ gaussian[: size // 4]


def _spectra(index: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return falling singular values by name; as in LAPACK's test types they reach down to 2^-52."""
    size = len(index)
    low, high = torch.full_like(index, 2.0**-52), torch.ones_like(index)
    low[0], high[-1] = 1, 2.0**-52
    return {
        "arithmetic": 1 - (index - 1) / size,
        "geometric": torch.exp(-math.log(2.0**52) * (index - 1) / (size - 1)),
        "clustered low": low,
        "clustered high": high,
        "clustered blocks": 10.0 ** -((index - 1) // 4).clamp(max=12),
        "power law": index**-0.7,
    }


def _with_spectrum(sigma: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    size = len(sigma)
    u = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    weight: torch.Tensor = (u * sigma) @ v.mT
    return weight


def _kahan(size: int, theta: float = 1.2) -> torch.Tensor:
    """Return Kahan's matrix: upper triangular, ill-conditioned, its diagonal hides its rank."""
    rows = torch.full((size,), math.sin(theta), dtype=torch.float64).pow(torch.arange(size))
    upper = torch.triu(torch.full((size, size), -math.cos(theta), dtype=torch.float64), diagonal=1)
    return rows[:, None] * (upper + torch.eye(size, dtype=torch.float64))
