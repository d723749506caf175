"""Ways to narrow queries and keys, all as maps of whole heads, so that one measure judges them.

Letters: H query heads, G key heads, K width of a head, P = K / 2 rotary pairs, R narrow width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from narrows.decompose import grouped, head_moments, query_key, rotary_query_key, rotary_rank

if TYPE_CHECKING:
    from narrows._values import Moments
    from narrows.decompose import RotaryRank
    from narrows.nn import DenseAttention


@dataclass(frozen=True, eq=False)
class Heads:
    """One attention layer, and what calibration says of its input.

    Attributes:
        dense: its weights.
        moments: of its input.
        frequencies: (P,) radians a token; None: no rotary positions.
        context: tokens at which distances are averaged.
    """

    dense: DenseAttention
    moments: Moments
    frequencies: torch.Tensor | None
    context: int

    @cached_property
    def query(self) -> torch.Tensor:
        """Second moments of every query head, (H, K, K)."""
        return head_moments(self.dense.query.weight, self.dense.query.bias, self.moments, heads=self.dense.heads)

    @cached_property
    def key(self) -> torch.Tensor:
        """Second moments of every key head, (G, K, K)."""
        return head_moments(self.dense.key.weight, self.dense.key.bias, self.moments, heads=self.dense.groups)

    @cached_property
    def summed(self) -> torch.Tensor:
        """Second moments of queries, summed over each group, (G, K, K)."""
        return grouped(self.query, self.dense.groups)

    @property
    def share(self) -> int:
        """Query heads for each key head."""
        return self.dense.heads // self.dense.groups


@dataclass(frozen=True, eq=False)
class Narrow:
    """q' = query q + query_offset and k' likewise; scores are q'^T k', turned by `frequencies`.

    Attributes:
        query: (H, W, K); key: (G, W, K); W is R, or K where only the rank of the maps is R.
        frequencies: (G, W / 2); None: nothing is turned.
        query_offset, key_offset: (H, W) and (G, W), or None.
        predicted: the error that the method itself expects; None: it expects none.
    """

    query: torch.Tensor
    key: torch.Tensor
    frequencies: torch.Tensor | None = None
    query_offset: torch.Tensor | None = None
    key_offset: torch.Tensor | None = None
    predicted: float | None = None


def plain(heads: Heads, width: int) -> Narrow:
    """Truncate the SVD of each weight by itself; biases stay."""
    dense = heads.dense
    query, query_offset = _truncated(dense.query.weight, dense.query.bias, dense.heads, width)
    key, key_offset = _truncated(dense.key.weight, dense.key.bias, dense.groups, width)
    return Narrow(query, key, _every(heads), query_offset, key_offset)


def separate(heads: Heads, width: int) -> Narrow:
    """Truncate each side by itself in the norm of the data (the SVD of W C^1/2), biases inside the moments."""
    return Narrow(_principal(heads.query, width), _principal(heads.key, width), _every(heads))


def separate_key(heads: Heads, width: int) -> Narrow:
    """Truncate the keys alone, in the norm of the data."""
    return Narrow(_whole(heads.query), _principal(heads.key, width), _every(heads))


def joint(heads: Heads, width: int) -> Narrow:
    """Narrow both sides together, in closed form; no positions."""
    maps = query_key(heads.summed, heads.key).at(width)
    return Narrow(maps.query.repeat_interleave(heads.share, dim=0), maps.key, predicted=maps.error)


def joint_turned(heads: Heads, width: int) -> Narrow:
    """Take the joint form as if there were no positions, bring it back to whole heads, and turn these."""
    maps = query_key(heads.summed, heads.key).at(width)
    query, key = (torch.linalg.pinv(side) @ side for side in (maps.query, maps.key))
    return Narrow(query.repeat_interleave(heads.share, dim=0), key, _every(heads))


def averaged(heads: Heads, width: int) -> Narrow:
    """Weight each side by the mean energy of the other's pairs: the limit of an endless context."""
    eye = torch.eye(heads.key.shape[-1], dtype=torch.float64)
    of_keys, of_queries = _energy(heads.key).sqrt().repeat(1, 2), _energy(heads.summed).sqrt().repeat(1, 2)

    def side(second: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        kept = _principal(weight[..., None] * second * weight[:, None], width)
        return (kept @ eye) * weight[:, None] / weight[..., None]

    return Narrow(
        side(heads.query, of_keys.repeat_interleave(heads.share, 0)), side(heads.key, of_queries), _every(heads)
    )


def rotary(heads: Heads, rank: int) -> Narrow:
    """Truncate both projections, each in the other's turned moment."""
    factors = _rotary(heads).at(rank)
    assert factors.query_up is not None
    assert factors.query_down is not None
    query, key = factors.query_up @ factors.query_down, factors.key_up @ factors.key_down
    return Narrow(query, key, _every(heads), predicted=factors.error)


def rotary_key(heads: Heads, rank: int) -> Narrow:
    """Truncate the keys' projection alone, in the queries' turned moment."""
    factors = _rotary(heads).at(rank, sides="key")
    return Narrow(_whole(heads.query), factors.key_up @ factors.key_down, _every(heads), predicted=factors.error)


def selected(heads: Heads, width: int) -> Narrow:
    """Keep the pairs of largest E|q_f|^2 E|k_f|^2, as they are."""
    P = heads.key.shape[-1] // 2
    pairs = (_energy(heads.summed) * _energy(heads.key)).topk(width // 2, dim=-1).indices.sort(dim=-1).values
    maps = torch.eye(2 * P, dtype=torch.float64)[torch.cat((pairs, pairs + P), dim=-1)]
    assert heads.frequencies is not None
    return Narrow(maps.repeat_interleave(heads.share, dim=0), maps, heads.frequencies[pairs])


def rotary_width(heads: Heads, width: int) -> Narrow:
    """Keep the pairs that backward elimination leaves, with the best features turned by them."""
    assert heads.frequencies is not None
    every = rotary_query_key(heads.summed, heads.key, frequencies=heads.frequencies, context=heads.context)
    maps = every.at(width)
    assert maps.pairs is not None
    query = maps.query.repeat_interleave(heads.share, dim=0)
    return Narrow(query, maps.key, heads.frequencies[maps.pairs], predicted=maps.error)


WITHOUT_POSITIONS = {"plain separate": plain, "data-aware separate": separate, "joint": joint}
PROJECTIONS = {
    "plain separate": plain,
    "data-aware separate": separate,
    "joint, positions ignored": joint_turned,
    "positions averaged": averaged,
    "rotary": rotary,
}
KEY_PROJECTIONS = {"data-aware": separate_key, "rotary": rotary_key}
WIDTHS = {"selected pairs": selected, "rotary": rotary_width}


def _every(heads: Heads) -> torch.Tensor | None:
    return None if heads.frequencies is None else heads.frequencies.expand(heads.dense.groups, -1)


def _whole(second: torch.Tensor) -> torch.Tensor:
    return torch.eye(second.shape[-1], dtype=torch.float64).expand_as(second)


def _principal(second: torch.Tensor, width: int) -> torch.Tensor:
    """Return the projection on the largest eigenvectors, of whole heads."""
    kept = torch.linalg.eigh(second).eigenvectors[..., -width:]
    return kept @ kept.mT


def _truncated(
    weight: torch.Tensor, bias: torch.Tensor | None, heads: int, width: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    rows = weight.double().view(heads, -1, weight.shape[1])
    kept = _principal(rows @ rows.mT, width)
    if bias is None:
        return kept, None
    offset = bias.double().view(heads, -1)
    return kept, offset - (kept @ offset[..., None])[..., 0]


def _energy(second: torch.Tensor) -> torch.Tensor:
    """Return E|z_f|^2 of every pair, (heads, P)."""
    first, other = second.diagonal(dim1=-2, dim2=-1).chunk(2, dim=-1)
    return first + other


def _rotary(heads: Heads) -> RotaryRank:
    assert heads.frequencies is not None
    return rotary_rank(heads.query, heads.key, frequencies=heads.frequencies, context=heads.context)
