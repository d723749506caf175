"""Which keys a query sees, as every attention in torch operations reads it.

Letters: B batch, H heads, G key heads, T query rows, U keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def merged_mask(
    mask: Tensor | None, *, causal: bool, lengths: Tensor | None, queries: int, keys: int, device: torch.device
) -> Tensor | None:
    """Return mask, causality and lengths as one mask of 4 dimensions that broadcasts to (B, H, T, U); None: all seen.

    Args:
        mask: bool (True takes part) or added.
        causal: query t sees keys up to length - T + t: the last query sees the last key.
        lengths: (B,): keys that count; None: U.
    """
    seen = _seen(causal=causal, lengths=lengths, queries=queries, keys=keys, device=device)
    if mask is None:
        return seen
    mask = mask.reshape((1,) * (4 - mask.ndim) + tuple(mask.shape))
    if seen is None:
        return mask
    return mask & seen if mask.dtype == torch.bool else torch.where(seen, mask, -torch.inf)


def only_valid(cache: Tensor, lengths: Tensor | None) -> Tensor:
    """Return a cache (B, G, U, width) with zeros beyond the lengths: NaN times a weight of 0 would be NaN."""
    if lengths is None:
        return cache
    index = torch.arange(cache.shape[2], device=cache.device)
    return cache.masked_fill((index >= lengths[:, None])[:, None, :, None], 0)


def _seen(*, causal: bool, lengths: Tensor | None, queries: int, keys: int, device: torch.device) -> Tensor | None:
    """Return (B or 1, 1, T or 1, U) of True where lengths and causality let a query see a key."""
    index = torch.arange(keys, device=device)
    if lengths is None:
        # One query is the last one: it sees every key.
        if not causal or queries == 1:
            return None
        return (index <= (keys - queries) + torch.arange(queries, device=device)[:, None])[None, None]
    ends = lengths.clamp(0, keys)[:, None, None, None]
    if causal:
        ends = ends - (queries - 1) + torch.arange(queries, device=device)[:, None]
    return index < ends
