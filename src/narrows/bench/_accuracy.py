"""The error of a factorised chain against float64, split into truncation and rounding.

Letters: K sampled rows, U columns, R rank, D, E features, H heads. Runs in the child process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
PART_BYTES = 64 << 20


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
    """Return the one-sided upper 95 % end of sqrt(sum error / sum norm), by bootstrap over rows.

    Infinite where a chain overflows.
    """
    if not np.isfinite(error_K).all():
        return math.inf
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
        x: (N, D) in the experiment's dtype, every row there is; lengths above N are passed over.
        y: (U, E) or None (Y = X, or linear).
    """
    stored = factors.to(x.dtype)
    for tokens in experiment.tokens:
        if tokens > len(x):
            continue
        drawn = [
            _summed(draw, exact_weight, factors, stored, experiment.ranks) for draw in _draws(experiment, tokens, x, y)
        ]
        norm_K = np.concatenate([squares.norm_K for squares in drawn])
        scale = float(np.sum(norm_K)) or 1.0
        for index, rank in enumerate(experiment.ranks):
            truncation, rounding, total_K = (np.concatenate([d.ranks[index][i] for d in drawn]) for i in range(3))
            yield OutputError(
                weight=weight_name,
                tokens=tokens,
                rank=rank,
                truncation=float(np.sqrt(np.sum(truncation) / scale)),
                rounding=float(np.sqrt(np.sum(rounding) / scale)),
                total=float(np.sqrt(np.sum(total_K) / scale)),
                upper95=upper95(total_K, norm_K, seed=experiment.seed),
            )


def _draws(
    experiment: Experiment, tokens: int, x: torch.Tensor, y: torch.Tensor | None
) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Return sampled rows, each with the other side that they are multiplied with.

    Where rows do not meet each other (linear, or a y of its own) they are drawn from the whole input,
    so that a short length is not judged by the first row of a text. With Y = X, a length below 64 takes
    as many blocks of the input as make 64 rows.
    """
    if experiment.kind == "linear" or y is not None:
        return [(x[sampled_rows(len(x), experiment.seed).to(x.device)], y)]
    count = max(1, min(len(x) // tokens, math.ceil(SAMPLED_ROWS / tokens)))
    rows = sampled_rows(tokens, experiment.seed).to(x.device)
    blocks = torch.split(x[: count * tokens], tokens)
    return [(block[rows], block) for block in blocks]


def _summed(
    draw: tuple[torch.Tensor, torch.Tensor | None],
    exact_weight: torch.Tensor,
    factors: Factors,
    stored: Factors,
    ranks: tuple[int, ...],
) -> _Squares:
    """Return one draw's squares, added up over parts of its other side."""
    x_KD, other = draw
    parts = [_squares(x_KD, part, exact_weight, factors, stored, ranks) for part in _parts(other, factors)]
    summed = [tuple(_sum(part.ranks[index][i] for part in parts) for i in range(3)) for index in range(len(ranks))]
    return _Squares(_sum(part.norm_K for part in parts), summed)  # type: ignore[arg-type]


def _parts(other: torch.Tensor | None, factors: Factors) -> Iterable[torch.Tensor | None]:
    """Split y so that float64 scores of the sampled rows against one part take 64 MiB at most."""
    if other is None:
        return (None,)
    width = max(factors.heads * SAMPLED_ROWS, factors.heads * factors.rank, factors.out_features)
    return torch.split(other, max(PART_BYTES // (8 * width), 1))


def _sum(vectors: Iterable[Vector]) -> Vector:
    return np.sum(list(vectors), axis=0)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Squares:
    """Sums over the columns of one part, for each sampled row.

    Attributes:
        norm_K: of the exact scores.
        ranks: (truncation, rounding, both together) for each rank.
    """

    norm_K: Vector
    ranks: list[tuple[Vector, Vector, Vector]]


def _squares(  # noqa: PLR0917 (the pieces of one comparison)
    x_KD: torch.Tensor,
    other: torch.Tensor | None,
    exact_weight: torch.Tensor,
    factors: Factors,
    stored: Factors,
    ranks: tuple[int, ...],
) -> _Squares:
    other64 = None if other is None else other.double()
    wanted = x_KD.double() @ exact_weight.mT
    if other64 is not None:
        wanted = wanted @ other64.mT
    thin, low = _Chain(x_KD.double(), other64, factors), _Chain(x_KD, other, stored)
    found = []
    for rank in ranks:
        exact, rounded = thin.at(rank), low.at(rank).double()
        found.append((_norms(exact - wanted), _norms(rounded - exact), _norms(rounded - wanted)))
    return _Squares(_norms(wanted), found)
