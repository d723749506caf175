"""Heads of attention made of few random tokens, for tests of joint forms.

Moments are averages over just these tokens, so that an error that the moments predict is the one over all pairs of
tokens, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from narrows._values import Moments
from narrows.decompose import grouped, head_moments


@dataclass(frozen=True)
class Heads:
    """Queries (H, N, K) and keys (G, N, K) of N tokens, with the weights and moments that they come from."""

    queries: torch.Tensor
    keys: torch.Tensor
    query_moments: torch.Tensor
    key_moments: torch.Tensor

    @property
    def summed(self) -> torch.Tensor:
        """Second moments of the queries, summed over each group, (G, K, K)."""
        return grouped(self.query_moments, len(self.keys))

    @property
    def share(self) -> int:
        """Query heads for each key head."""
        return len(self.queries) // len(self.keys)


def heads(
    *,
    heads: int = 4,
    groups: int = 2,
    width: int = 6,
    tokens: int = 40,
    features: int = 16,
    bias: bool = False,
    seed: int = 0,
) -> Heads:
    """Return heads of tokens whose features are correlated, of different size and have a mean."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    x = normal(tokens, features) @ normal(features, features) * torch.logspace(0, -1, features) + normal(features)
    moments = Moments(x.mT @ x / tokens, x.mean(0), None, tokens)
    made = []
    for number in (heads, groups):
        # Directions of a head differ in size, so that there is something to choose.
        sizes = torch.logspace(0, -1.5, width, dtype=torch.float64).repeat(number)[:, None]
        weight, offset = normal(number * width, features) * sizes, normal(number * width) if bias else None
        vectors = torch.nn.functional.linear(x, weight, offset).view(tokens, number, width).transpose(0, 1)
        made.append((vectors, head_moments(weight, offset, moments, heads=number)))
    (queries, query_moments), (keys, key_moments) = made
    return Heads(queries, keys, query_moments, key_moments)


def turned(vectors: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Return vectors (..., 2 M) with pair (f, M + f) turned by angles (..., M), as complex numbers would be."""
    first, second = vectors.chunk(2, dim=-1)
    both = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((both.real, both.imag), dim=-1)
