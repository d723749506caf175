"""Queries and keys narrowed together, without positions: the best r-wide heads for the scores between them.

S = q^T k with q = W_q x, k = W_k y for independent tokens x and y: the r-wide q' and k' that lose least of
E |q^T k - q'^T k'|^2 are known in closed form. With L_q L_q^T = E[q q^T] and L_k L_k^T = E[k k^T], the best rank r of
L_q^T L_k (Eckart and Young 1936) gives q' = S^1/2 U^T L_q^-1 q and k' = S^1/2 V^T L_k^-1 k, and all it drops is lost.
For Y = X this is the bilinear chain (X a^T)(X b^T)^T with factors weighted by data; the truncation of a product of
two maps in the norms of both data is that of CorDA and A3 (2024, 2025), which leave biases and groups out.

Query heads that share a key head share one map too: the optimum depends on them through the sum of their second
moments alone.

Letters: G groups (key heads), K width of a head, R narrow width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from narrows._values import Certificate
from narrows.decompose._query_key_moments import Roots, check_pair
from narrows.errors import RankError


@dataclass(frozen=True, eq=False)
class HeadMaps:
    """Linear maps from the heads of a model to narrow ones: scores q'^T k' in place of q^T k.

    Attributes:
        query: (G, R, K) float64, one for all query heads of a group.
        key: (G, R, K) float64.
        error: root of E |score' - score|^2 / E |score|^2 over all heads, as the moments predict it.
        pairs: (G, R / 2) int64: which rotary frequency turns each pair (i, R / 2 + i) of narrow features;
            None: nothing is turned.
    """

    query: torch.Tensor
    key: torch.Tensor
    error: float
    pairs: torch.Tensor | None = None

    @property
    def width(self) -> int:
        """R."""
        return int(self.query.shape[1])


@dataclass(frozen=True, eq=False)
class QueryKey:
    """Every width of the heads of one attention layer, from one decomposition.

    Attributes:
        query, key: (G, K, K) float64; the first R rows of both are the best maps to width R.
        sigma: (G, K) float64, falling.
    """

    query: torch.Tensor
    key: torch.Tensor
    sigma: torch.Tensor

    @cached_property
    def certificate(self) -> Certificate:
        """The error of the scores at every width; all figures are of the norm weighted by data."""
        norm = float(torch.linalg.vector_norm(self.sigma))
        values = tuple(tuple(row) for row in self.sigma.tolist())
        return Certificate("joint", values, norm, residual=0.0)

    def at(self, width: int) -> HeadMaps:
        """Return the best maps to heads of this width.

        Raises:
            RankError: outside 1..K.
        """
        check_width(width, self.sigma.shape[-1])
        return HeadMaps(self.query[:, :width], self.key[:, :width], self.certificate.error(width))


@torch.no_grad()
def query_key(query_GKK: torch.Tensor, key_GKK: torch.Tensor) -> QueryKey:
    """Return every narrower form of heads that meet without rotary positions.

    Args:
        query_GKK: second moments of the queries (`head_moments`), summed over the heads of a group (`grouped`).
        key_GKK: second moments of the keys.

    Raises:
        ShapeError: not (G, K, K) both.
    """
    check_pair(query_GKK, key_GKK)
    queries, keys = Roots.of(query_GKK), Roots.of(key_GKK)
    u_GKK, sigma_GK, vt_GKK = torch.linalg.svd(queries.matrix.mT @ keys.matrix)
    root_GK1 = sigma_GK.sqrt()[..., None]
    return QueryKey(root_GK1 * (u_GKK.mT @ queries.inverse), root_GK1 * (vt_GKK @ keys.inverse), sigma_GK)


def check_width(width: object, largest: int, *, step: int = 1) -> None:
    """Raise RankError unless `width` is a multiple of `step` within step..largest."""
    if isinstance(width, bool) or not isinstance(width, int) or not step <= width <= largest or width % step:
        unit = "" if step == 1 else f", a multiple of {step}"
        raise RankError(f"width={width!r} must be a whole number within {step}..{largest}, the width of a head{unit}.")
