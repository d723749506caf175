"""The error of a factorised chain against float64, split into truncation and rounding.

Letters: K sampled rows, U columns, R rank, D, E features, H heads. Runs in the child process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from narrows._values import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from narrows._values import Experiment, Factors

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]

SAMPLED_ROWS = 64
RESAMPLES = 1000


def sampled_rows(tokens: int, seed: int) -> torch.Tensor:
    """Return the indices of at most 64 rows, ascending, drawn without replacement."""
    if tokens <= SAMPLED_ROWS:
        return torch.arange(tokens)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(tokens, generator=generator)[:SAMPLED_ROWS].sort().values


def _norms(matrix: torch.Tensor) -> Vector:
    """Return the squared norm of each sampled row (over heads and columns)."""
    squares = matrix.double().square().sum(dim=-1)
    return np.asarray((squares if squares.ndim == 1 else squares.sum(dim=0)).cpu().numpy())


def upper95(error_K: Vector, norm_K: Vector, *, seed: int = 0) -> float:
    """Return the one-sided upper 95 % end of sqrt(sum error / sum norm), by bootstrap over rows."""
    picks = np.random.default_rng(seed).integers(0, len(error_K), (RESAMPLES, len(error_K)))
    top, bottom = error_K[picks].sum(axis=1), norm_K[picks].sum(axis=1)
    return float(np.sqrt(np.quantile(top / np.where(bottom > 0, bottom, 1.0), 0.95)))


class _Chain:
    """The thin chain at every rank from one projection a side: prefixes of the largest rank."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor | None, factors: Factors) -> None:
        self.p = x @ factors.a.mT
        self.q = factors.b if y is None else (y @ factors.b.mT).mT

    def at(self, rank: int) -> torch.Tensor:
        return self.p[..., :rank] @ self.q[..., :rank, :]


def output_errors(
    experiment: Experiment,
    *,
    weight_name: str,
    exact_weight: torch.Tensor,
    factors: Factors,
    x: torch.Tensor,
    y: torch.Tensor | None,
) -> Iterable[OutputError]:
    """Yield the error at every length and rank of one weight.

    Args:
        exact_weight: (E, D) or (H, E, D), float64.
        factors: float64, of the largest rank (fewer rows mean exactness beyond them).
        x: (max T, D) in the experiment's dtype; y: (U, E) or None (Y = X, or linear).
    """
    stored = factors.to(x.dtype)
    for tokens in experiment.tokens:
        rows = sampled_rows(tokens, experiment.seed).to(x.device)
        x_KD = x[:tokens][rows]
        other = None if experiment.kind == "linear" else (x[:tokens] if y is None else y)
        wanted = x_KD.double() @ exact_weight.mT
        if other is not None:
            wanted = wanted @ other.double().mT
        thin = _Chain(x_KD.double(), None if other is None else other.double(), factors)
        low = _Chain(x_KD, other, stored)
        norm_K = _norms(wanted)
        for rank in experiment.ranks:
            exact, rounded = thin.at(rank), low.at(rank).double()
            total_K = _norms(rounded - wanted)
            scale = float(norm_K.sum()) or 1.0
            yield OutputError(
                weight=weight_name,
                tokens=tokens,
                rank=rank,
                truncation=float(np.sqrt(_norms(exact - wanted).sum() / scale)),
                rounding=float(np.sqrt(_norms(rounded - exact).sum() / scale)),
                total=float(np.sqrt(total_K.sum() / scale)),
                upper95=upper95(total_K, norm_K, seed=experiment.seed),
            )
