"""Published ways to factorise one layer and to share out ranks, written anew from their papers.

All take the same calibration moments. What they share: W at rank r is left[:, :r] right[:r], which is charged
r (D + E) numbers. Letters: D input, E output features, K = min(D, E).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    Shape = tuple[int, int]  # D, E
    Ranks = dict[str, int | None]  # by layer; None is dense

ALPHA = 0.5  # of ASVD
FLOOR = 1e-6  # of the mean of a diagonal, added where a moment is not positive definite
SHRINK_INPUTS, SHRINK_GRADIENTS = 0.1, 0.3


@dataclass(frozen=True, eq=False)
class Factored:
    """Every rank of one weight, best in the norm that its method minimises.

    Attributes:
        left: (E, K). right: (K, D). In the weight's dtype.
        sigma: (K,) float64, on the CPU; the root of their tail's sum of squares is the error in that norm.
    """

    left: Tensor
    right: Tensor
    sigma: Tensor

    def weight(self, rank: int) -> Tensor:
        """Return the weight (E, D) at a rank."""
        return self.left[:, :rank] @ self.right[:rank]

    def tail(self, rank: int) -> float:
        """Return the error of a rank in the method's norm."""
        return float(torch.linalg.vector_norm(self.sigma[rank:]))


def factored(weight_ED: Tensor, *, left_root: Tensor | None = None, right_root: Tensor | None = None) -> Factored:
    """Return the ranks that minimise ||L^T (W - W_r) S||_F, from one singular value decomposition in float64.

    Args:
        left_root: L, (E, E); None: the identity.
        right_root: S, (D, D); None: the identity.
    """
    inner = weight_ED.double()
    if right_root is not None:
        inner = inner @ right_root
    if left_root is not None:
        inner = left_root.mT @ inner
    u, sigma, vh = torch.linalg.svd(inner, full_matrices=False)
    left, right = u * sigma, vh
    if left_root is not None:
        left = torch.linalg.solve(left_root.mT, left)
    if right_root is not None:
        right = torch.linalg.solve(right_root.mT, right.mT).mT
    return Factored(left.to(weight_ED.dtype), right.to(weight_ED.dtype), sigma.cpu())


def plain(weight_ED: Tensor) -> Factored:
    """Return the truncated singular value decomposition of the weight itself (Eckart and Young 1936)."""
    return factored(weight_ED)


def scaled(weight_ED: Tensor, means_D: Tensor) -> Factored:
    """Return ASVD's factors: columns scaled by (mean |x|)^0.5 (Yuan et al. 2023).

    Args:
        means_D: mean |x| of each input feature over the calibration text.
    """
    return factored(weight_ED, right_root=torch.diag(means_D.to(weight_ED.device).double() ** ALPHA + FLOOR))


def whitened(weight_ED: Tensor, inputs_DD: Tensor) -> Factored:
    """Return SVD-LLM's factors, which minimise E||(W - W_r) x||^2 (Wang et al. 2024).

    Args:
        inputs_DD: E[x x^T].
    """
    return factored(weight_ED, right_root=root(inputs_DD.to(weight_ED.device)))


def two_sided(weight_ED: Tensor, inputs_DD: Tensor, gradients_EE: Tensor) -> Factored:
    """Return KFAC-SVD's factors; the sum of their discarded sigma^2 / 2 is the loss's growth to second order.

    Both moments are shrunk towards the mean of their diagonals, by 0.1 and 0.3, as LEMS does (2026).

    Args:
        inputs_DD: E[x x^T].
        gradients_EE: E[g g^T] of g = dL/dy, token by token.
    """
    inputs = shrunk(inputs_DD.to(weight_ED.device), SHRINK_INPUTS)
    gradients = shrunk(gradients_EE.to(weight_ED.device), SHRINK_GRADIENTS)
    return factored(weight_ED, left_root=root(gradients), right_root=root(inputs))


def root(moment: Tensor) -> Tensor:
    """Return L with L L^T = the moment, by Cholesky; one that is not positive definite is raised by its lack of it."""
    lower, info = torch.linalg.cholesky_ex(moment)
    if int(info) == 0:
        return lower
    lack = max(-float(torch.linalg.eigvalsh(moment)[0]), 0.0) + FLOOR * float(moment.diagonal().mean())
    return torch.linalg.cholesky(moment + lack * torch.eye(len(moment), dtype=moment.dtype, device=moment.device))


def shrunk(moment: Tensor, share: float) -> Tensor:
    """Return (1 - share) M + share m I, m the mean of M's diagonal."""
    found = (1 - share) * moment
    found.diagonal().add_(share * moment.diagonal().mean())
    return found


def numbers(shape: Shape, rank: int | None) -> int:
    """Return how many numbers a weight takes: D E, or r (D + E)."""
    D, E = shape
    return D * E if rank is None else rank * (D + E)


def kept(shapes: Mapping[str, Shape], ranks: Mapping[str, int | None]) -> float:
    """Return the numbers of all layers over those of the dense ones."""
    return sum(numbers(shapes[name], ranks[name]) for name in shapes) / sum(D * E for D, E in shapes.values())


def rank_at(shape: Shape, keep: float) -> int:
    """Return the largest rank, 1 at least, that takes no more than `keep` of the weight's numbers."""
    D, E = shape
    return max(1, math.floor(keep * D * E / (D + E)))


def uniform(shapes: Mapping[str, Shape], keep: float) -> Ranks:
    """Return the same share of every layer, as SVD-LLM and ASVD are run without a search."""
    return {name: rank_at(shape, keep) for name, shape in shapes.items()}


def by_loss(shapes: Mapping[str, Shape], keep: float, losses: Mapping[str, float]) -> Ranks:
    """Return SVD-LLM V2's ranks: within a group of layers of one kind, less is taken where the loss is larger.

    A layer loses the share N (1 - keep) (1 / log L) / sum(1 / log L) of its numbers, N being the layers of its group
    (Wang et al. 2025). L is the error of the uniform rank, the norm over all calibration tokens.

    Args:
        losses: L of every layer; the formula is undefined at 1 and below.

    Raises:
        ValueError: a loss of 1 or less.
    """
    low = {name: loss for name, loss in losses.items() if loss <= 1}
    if low:
        raise ValueError(f"V2's formula needs losses above 1; {next(iter(low))} has {next(iter(low.values())):.3g}")
    found: Ranks = {}
    for group in kinds(shapes).values():
        weight = {name: 1 / math.log(losses[name]) for name in group}
        for name in group:
            share = len(group) * (1 - keep) * weight[name] / sum(weight.values())
            found[name] = rank_at(shapes[name], max(0.0, 1 - share))
    return found


def kinds(names: Mapping[str, object]) -> dict[str, list[str]]:
    """Return the layers of each kind: those whose names end alike (q_proj, down_proj)."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.rpartition(".")[2], []).append(name)
    return found
