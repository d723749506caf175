"""Heads with rotary positions, narrowed at run time: fewer frequencies, and the best features to turn by them.

A width-R head keeps R / 2 of the P frequencies. Dropping the pairs of least E|q_f|^2 E|k_f|^2 is the rule of MoDeGPT
(2024) and A3 (2025). It is optimal where every frequency averages to nothing against every other, which within
a context of T tokens only the fast ones do: slow pairs hardly turn, and a few of them can carry what all of them
hold. So here all features may go into the kept pairs. For given maps of the keys the best maps of the queries are
a least squares solution, and the other way round; pairs are taken away one by one, each time the one whose loss after
that solution is smallest (backward elimination, with the loss of each candidate from one inverse), and both maps are
then improved in turn. Every step lowers the same exact expected error.

Letters: G groups (key heads), K width of a head, P = K / 2 pairs, M pairs kept, R = 2 M.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from narrows.decompose._query_key import HeadMaps, check_width
from narrows.decompose._query_key_moments import check_pair, identity, relative
from narrows.decompose._rope import Rotations
from narrows.errors import ShapeError

# SmolLM2-135M, four layers, widths 48, 32, 16 of 64: 20 rounds in place of 4 lowered the error by 0.5, 3 and 2 %.
ROUNDS = 8
# Of the mean of the diagonal: a moment of rank below 2 M has no inverse.
RIDGE = 1e-10


@dataclass(frozen=True, eq=False)
class RotaryQueryKey:
    """Every width of the heads of one attention layer with rotary positions.

    Attributes:
        moments: of the heads, and how distances turn them.
        order: (G, P) int64: frequencies, the ones to keep longest first.
    """

    moments: RotaryMoments
    order: torch.Tensor

    @torch.no_grad()
    def at(self, width: int) -> HeadMaps:
        """Return maps to heads of this width, and the frequencies that turn them.

        Raises:
            RankError: outside 2..K, or odd.
        """
        P = self.order.shape[-1]
        check_width(width, 2 * P, step=2)
        pairs_GM = self.order[:, : width // 2].sort(dim=-1).values
        key_GRK = identity(self.moments.key)[0][torch.cat((pairs_GM, pairs_GM + P), dim=-1)]
        if width == 2 * P:
            return HeadMaps(key_GRK, key_GRK, 0.0, pairs_GM)
        for _ in range(ROUNDS):
            query_GRK, _ = self.moments.best_query(key_GRK, pairs_GM)
            key_GRK = self.moments.best_key(query_GRK, pairs_GM)
        query_GRK, kept_G = self.moments.best_query(key_GRK, pairs_GM)
        total_G = self.moments.total()
        query_GRK, key_GRK = _balanced(query_GRK, key_GRK, self.moments)
        return HeadMaps(query_GRK, key_GRK, relative(total_G - kept_G, total_G), pairs_GM)


@dataclass(frozen=True, eq=False)
class RotaryMoments:
    """Second moments of queries (summed over a group) and keys, (G, K, K), and what distances do to them."""

    query: torch.Tensor
    key: torch.Tensor
    rotations: Rotations

    def total(self) -> torch.Tensor:
        """Return E |q^T R_t k|^2, (G,)."""
        return (self.query * self.turned_whole(self.key, backwards=True)).sum(dim=(-2, -1))

    @property
    def all_pairs(self) -> torch.Tensor:
        """Every frequency, (G, P) int64."""
        G, K = self.key.shape[:2]
        return torch.arange(K // 2, device=self.key.device).expand(G, -1)

    def best_query(self, key_GRK: torch.Tensor, pairs_GM: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the query maps (G, R, K) of least error for these key maps, and what of the scores they keep, (G,).

        They do not depend on the queries' moments, so all heads of a group share them.
        """
        crossed_GKR, own_GRR = self.seen(self.key, key_GRK, pairs_GM, backwards=True)
        query_GRK = _solve(own_GRR, crossed_GKR)
        return query_GRK, ((self.query @ crossed_GKR) * query_GRK.mT).sum(dim=(-2, -1))

    def best_key(self, query_GRK: torch.Tensor, pairs_GM: torch.Tensor) -> torch.Tensor:
        """Return the key maps (G, R, K) of least error for these query maps."""
        crossed_GKR, own_GRR = self.seen(self.query, query_GRK, pairs_GM, backwards=False)
        return _solve(own_GRR, crossed_GKR)

    def losses(self, key_GRK: torch.Tensor, pairs_GM: torch.Tensor) -> torch.Tensor:
        """Return what more is lost without each pair, the query maps solved again, (G, M).

        Removing variables J of a least squares solution b raises its error by b_J (A^-1)_JJ^-1 b_J^T.
        """
        crossed_GKR, own_GRR = self.seen(self.key, key_GRK, pairs_GM, backwards=True)
        M = pairs_GM.shape[-1]
        both_M2 = torch.arange(2 * M, device=pairs_GM.device).view(2, M).mT
        rows, columns = both_M2[:, :, None], both_M2[:, None]
        inverse_GRR = torch.linalg.inv(_ridged(own_GRR))
        query_GRK = inverse_GRR @ crossed_GKR.mT
        energy_GRR = query_GRK @ self.query @ query_GRK.mT
        lost_GM22 = torch.linalg.solve(inverse_GRR[:, rows, columns], energy_GRR[:, rows, columns])
        return lost_GM22.diagonal(dim1=-2, dim2=-1).sum(-1)  # type: ignore[no-any-return]

    def seen(
        self, second_GKK: torch.Tensor, maps_GRK: torch.Tensor, pairs_GM: torch.Tensor, *, backwards: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E[z z'^T] (G, K, R) and E[z' z'^T] (G, R, R) of turned heads z and turned narrow heads z'."""
        narrow_GKR = second_GKK @ maps_GRK.mT
        turned = self.rotations.turned
        return (
            turned(narrow_GKR, self.all_pairs, pairs_GM, backwards=backwards),
            turned(maps_GRK @ narrow_GKR, pairs_GM, pairs_GM, backwards=backwards),
        )

    def turned_whole(self, second_GKK: torch.Tensor, *, backwards: bool) -> torch.Tensor:
        """Return moments of whole heads, turned."""
        return self.rotations.turned(second_GKK, self.all_pairs, self.all_pairs, backwards=backwards)


@torch.no_grad()
def rotary_query_key(
    query_GKK: torch.Tensor, key_GKK: torch.Tensor, *, frequencies: torch.Tensor, context: int
) -> RotaryQueryKey:
    """Return every narrower form of heads that meet under rotary positions.

    Args:
        query_GKK: second moments of the queries before they are turned (`head_moments`), summed over the heads of
            a group (`grouped`). Features in the layout of two halves: f and P + f turn together.
        key_GKK: second moments of the keys.
        frequencies: (P,) theta, radians a token.
        context: tokens that meet each other; the error is that of a causal window of this length.

    Raises:
        ShapeError: moments that are not (G, K, K) with K = 2 P.
        InputError: a context below 1.
    """
    moments = rotary_moments(query_GKK, key_GKK, frequencies=frequencies, context=context)
    left_GM, key_GRK = moments.all_pairs, identity(key_GKK)
    dropped: list[torch.Tensor] = []
    while left_GM.shape[-1] > 1:
        worst_G1 = moments.losses(key_GRK, left_GM).argmin(dim=-1, keepdim=True)
        dropped.append(left_GM.gather(-1, worst_G1))
        keep_GM = torch.arange(left_GM.shape[-1], device=left_GM.device).expand_as(left_GM) != worst_G1
        left_GM = left_GM[keep_GM].reshape(len(key_GKK), -1)
        key_GRK = key_GRK[keep_GM.repeat(1, 2)].reshape(len(key_GKK), -1, key_GKK.shape[-1])
    return RotaryQueryKey(moments, torch.cat((left_GM, *reversed(dropped)), dim=-1))


def rotary_moments(
    query_GKK: torch.Tensor, key_GKK: torch.Tensor, *, frequencies: torch.Tensor, context: int
) -> RotaryMoments:
    """Return the moments with what distances within `context` tokens do to them; arguments as `rotary_query_key`."""
    check_pair(query_GKK, key_GKK)
    if 2 * frequencies.numel() != key_GKK.shape[-1]:
        raise ShapeError(
            f"frequencies {tuple(frequencies.shape)} must be (P,) with 2 P = K = {key_GKK.shape[-1]}, the width of the "
            f"heads of key {tuple(key_GKK.shape)}."
        )
    return RotaryMoments(query_GKK, key_GKK, Rotations.causal(frequencies.to(key_GKK.device), context))


def _ridged(own_GRR: torch.Tensor) -> torch.Tensor:
    mean_G = own_GRR.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=torch.finfo(own_GRR.dtype).tiny)
    return own_GRR + RIDGE * mean_G[:, None, None] * identity(own_GRR)


def _solve(own_GRR: torch.Tensor, crossed_GKR: torch.Tensor) -> torch.Tensor:
    solved: torch.Tensor = torch.linalg.solve(_ridged(own_GRR), crossed_GKR.mT)
    return solved


def _balanced(
    query_GRK: torch.Tensor, key_GRK: torch.Tensor, moments: RotaryMoments
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return maps of the same scores in which both sides of a pair have the same energy: they round alike."""

    def energy(maps_GRK: torch.Tensor, second_GKK: torch.Tensor) -> torch.Tensor:
        first_GM, second_GM = (maps_GRK @ second_GKK * maps_GRK).sum(-1).chunk(2, dim=-1)
        return (first_GM + second_GM).clamp(min=torch.finfo(maps_GRK.dtype).tiny)

    share_GM = (energy(key_GRK, moments.key) / energy(query_GRK, moments.query)) ** 0.25
    share_GR1 = share_GM.repeat(1, 2)[..., None]
    return query_GRK * share_GR1, key_GRK / share_GR1
