"""Which keys a query sees, as every attention in torch operations reads it.

Letters: B batch, H heads, G key heads, T query rows, U keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

# What a key that is not seen adds, and the least that a mask's own numbers count for. Both stay finite when a kernel
# multiplies them by log2(e) in float32: a softmax in blocks that meets a block of -inf first can give NaN.
UNSEEN = -2e38
LOWEST = -1e38


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


def added_mask(mask: Tensor, *, dtype: torch.dtype, keys: int, may_be_blind: bool) -> tuple[Tensor, Tensor | None]:
    """Return a mask that any fused kernel adds safely, and which rows see no key.

    What such a row gives differs between torch's kernels (cuDNN: the mean of all values; others zeros or NaN), so
    here it sees every key, finite in both directions, and its result must then be replaced by 0. A bool mask is
    not left to torch, which adds -65504 for cuDNN: a larger score would still take part.

    Args:
        mask: broadcasts to (B, H, T, U); bool (True takes part) or added.
        dtype: of q.
        keys: U: the last dimension of the result, contiguous, as a kernel may read it by the vector.
        may_be_blind: there can be rows that see no key; False: the second result is None.
    """
    seen = mask if mask.dtype == torch.bool else mask != -torch.inf
    least = torch.finfo(dtype).min
    unseen = UNSEEN if least < UNSEEN else -torch.inf
    value = 0.0 if mask.dtype == torch.bool else mask.clamp(min=max(least, LOWEST))
    if may_be_blind:
        blind = ~seen.any(-1, keepdim=True)
        other = torch.zeros_like(blind, dtype=dtype).masked_fill(~blind, unseen)
    else:
        blind, other = None, torch.full((), unseen, dtype=dtype, device=mask.device)
    added = torch.where(seen, value, other)
    return (added if added.shape[-1] == keys else added.expand(*added.shape[:-1], keys).contiguous()), blind


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
