"""Projections to heads with rotary positions at a smaller rank: heads keep their width, their maps do not.

An error Dq of a query costs E |Dq^T R_t k|^2 = Dq^T N Dq, with N = E[R_t k k^T R_t^T] over keys and distances: the
other side's moment, turned, is the weight in which to truncate (the diagonal of N alone, which is its limit for a long
context, weighs pairs only). With one side given the other is a weighted low-rank problem with a closed form
(reduced-rank regression, Izenman 1975).

Letters: H heads, G groups (key heads), K width of a head, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from narrows.decompose._query_key import check_width
from narrows.decompose._query_key_moments import Roots, grouped, identity, relative
from narrows.decompose._rope_width import RotaryMoments, rotary_moments
from narrows.errors import InputError, ShapeError

Sides = Literal["both", "key"]


@dataclass(frozen=True, eq=False)
class HeadFactors:
    """Factors of maps of whole heads: q' = up (down q), of rank R; None for a side that stays as it is.

    Attributes:
        query_down, query_up: (H, R, K) and (H, K, R) float64.
        key_down, key_up: (G, R, K) and (G, K, R) float64.
        error: root of E |score' - score|^2 / E |score|^2 over all heads, as the moments predict it.
    """

    query_down: torch.Tensor | None
    query_up: torch.Tensor | None
    key_down: torch.Tensor
    key_up: torch.Tensor
    error: float


@dataclass(frozen=True, eq=False)
class RotaryRank:
    """The projections of one attention layer with rotary positions, at any rank.

    Attributes:
        queries: (H, K, K) second moments, each query head's own.
        moments: of the groups, and how distances turn them.
    """

    queries: torch.Tensor
    moments: RotaryMoments

    @torch.no_grad()
    def at(self, rank: int, *, sides: Sides = "both") -> HeadFactors:
        """Return factors of this rank.

        Args:
            rank: 1..K, of each head.
            sides: "key" leaves the queries as they are.

        Raises:
            RankError: the rank is outside 1..K.
            InputError: another side.
        """
        check_width(rank, self.queries.shape[-1])
        if sides not in {"both", "key"}:
            raise InputError(f"sides={sides!r} must be 'both' or 'key'.")
        key_down, key_up, kept_G = self._key(identity(self.queries), rank)
        if sides == "key":
            return HeadFactors(None, None, key_down, key_up, self._error(kept_G))
        query_down, query_up = self._query(key_up @ key_down, rank)
        key_down, key_up, kept_G = self._key(query_up @ query_down, rank)
        return HeadFactors(query_down, query_up, key_down, key_up, self._error(kept_G))

    def costs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what an error of a query and of a key costs the scores: N of each, (H, K, K) and (G, K, K).

        As the gradients' moment of a layer that holds all heads (block diagonal) they make a two-sided factorisation
        of its weight one that knows about rotary positions.
        """
        keys_GKK = self.moments.turned_whole(self.moments.key, backwards=True)
        queries_GKK = self.moments.turned_whole(self.moments.query, backwards=False)
        return keys_GKK.repeat_interleave(len(self.queries) // len(keys_GKK), dim=0), queries_GKK

    def _query(self, key_GKK: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the best factors of the queries' maps for these maps of the keys."""
        crossed_GKK, own_GKK = self.moments.seen(self.moments.key, key_GKK, self.moments.all_pairs, backwards=True)
        share = len(self.queries) // len(own_GKK)
        crossed_HKK, own_HKK = (t.repeat_interleave(share, dim=0) for t in (crossed_GKK, own_GKK))
        down, up, _ = _truncated(self.queries, crossed_HKK, own_HKK, rank)
        return down, up

    def _key(self, query_HKK: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the best factors of the keys' maps for these maps of the queries, and what they keep, (G,)."""
        groups = len(self.moments.key)
        narrow_HKK = self.queries @ query_HKK.mT
        crossed_GKK, own_GKK = (grouped(t, groups) for t in (narrow_HKK, query_HKK @ narrow_HKK))
        crossed_GKK, own_GKK = (self.moments.turned_whole(t, backwards=False) for t in (crossed_GKK, own_GKK))
        return _truncated(self.moments.key, crossed_GKK, own_GKK, rank)

    def _error(self, kept_G: torch.Tensor) -> float:
        total_G = self.moments.total()
        return relative(total_G - kept_G, total_G)


@torch.no_grad()
def rotary_rank(
    query_HKK: torch.Tensor, key_GKK: torch.Tensor, *, frequencies: torch.Tensor, context: int
) -> RotaryRank:
    """Return the projections of heads with rotary positions at any rank.

    Args:
        query_HKK: second moments of every query head before it is turned (`head_moments`).
        key_GKK: second moments of the keys; G divides H.
        frequencies: (P,) theta, radians a token.
        context: tokens that meet each other.

    Raises:
        ShapeError, InputError: as `rotary_query_key`.
    """
    if query_HKK.ndim != 3 or key_GKK.ndim != 3 or not len(key_GKK) or len(query_HKK) % len(key_GKK):
        raise ShapeError(
            f"query {tuple(query_HKK.shape)} and key {tuple(key_GKK.shape)} must be (H, K, K) and (G, K, K), G "
            "dividing H."
        )
    summed_GKK = grouped(query_HKK, len(key_GKK))
    return RotaryRank(query_HKK, rotary_moments(summed_GKK, key_GKK, frequencies=frequencies, context=context))


def _truncated(
    second: torch.Tensor, crossed: torch.Tensor, own: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the map A = up down of a rank that loses least of E |x^T z - (A x)^T z'|^2, and what it keeps.

    Args:
        second: E[x x^T], (H, K, K).
        crossed: E[z z'^T]; own: E[z' z'^T].
    """
    mine, theirs = Roots.of(second), Roots.of(own)
    u, sigma, vt = torch.linalg.svd(mine.matrix.mT @ crossed @ theirs.inverse.mT)
    root = sigma[:, :rank].sqrt()
    down = root[..., None] * (u[..., :rank].mT @ mine.inverse)
    up = (theirs.inverse.mT @ vt[:, :rank].mT) * root[:, None]
    return down, up, (sigma[:, :rank] ** 2).sum(-1)
