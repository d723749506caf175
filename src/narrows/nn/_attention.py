"""LowRankAttention: attention whose heads are narrower than those they stand for.

Letters: B batch, T tokens, U keys, D input, E output features, H heads, G key heads, R and F widths of keys and values,
P rotary frequencies of a whole head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from narrows.errors import InputError, ShapeError
from narrows.nn._attention_dense import DenseAttention, Projection
from narrows.ops import attend

if TYPE_CHECKING:
    from typing import Self

    from narrows.nn._attention_cache import KeyValueCache

Rotary = tuple[Tensor, Tensor]


class LowRankAttention(nn.Module):
    """softmax(q k^T scale + mask) v through `o_proj`, with q, k and v of x by `q_proj`, `k_proj` and `v_proj`.

    Queries and keys are R wide, values F wide, and so is what a cache holds of them: bytes and time of attention
    fall with the widths. `scale` is that of the heads as they were, 1 / sqrt(K), for q^T k stands for their scores.
    The four children are ordinary nn.Linear, called as modules, so that adapters, quantizers and safetensors work on
    them.

    Attributes:
        in_features, out_features, heads, groups: D, E, H, G.
        query_key_width, value_width: R, F.
        scale: multiplies the scores.
        is_causal: without a mask, tokens see themselves and those before them; the last sees the last key.
        dropout: share of the attention weights that training drops.
        pairs: (G, R / 2) int64: which rotary frequency turns each pair (i, R / 2 + i); None: nothing is turned.
        q_norm, k_norm: applied to each whole head before it is turned; None: nothing.
    """

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    o_proj: nn.Module
    pairs: Tensor | None
    q_norm: nn.Module | None
    k_norm: nn.Module | None

    def __init__(
        self,
        in_features: int,
        *,
        heads: int,
        groups: int,
        query_key_width: int,
        value_width: int,
        scale: float,
        out_features: int | None = None,
        biases: tuple[bool, bool, bool, bool] = (False, False, False, False),
        is_causal: bool = False,
        has_rotary: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the module with random weights.

        Args:
            scale: must be given: 1 / sqrt(width of the original heads).
            out_features: E; None: D.
            biases: of q_proj, k_proj, v_proj and o_proj.
            has_rotary: `pairs` is a buffer, and forward needs `rotary`.
        """
        super().__init__()
        _check_sizes(heads, groups, query_key_width, value_width, has_rotary=has_rotary)
        self.in_features, self.out_features = in_features, in_features if out_features is None else out_features
        self.heads, self.groups, self.scale = heads, groups, scale
        self.query_key_width, self.value_width = query_key_width, value_width
        self.is_causal, self.dropout = is_causal, dropout
        sizes = (
            ("q_proj", in_features, heads * query_key_width),
            ("k_proj", in_features, groups * query_key_width),
            ("v_proj", in_features, groups * value_width),
            ("o_proj", heads * value_width, self.out_features),
        )
        for (name, D, E), bias in zip(sizes, biases, strict=True):
            setattr(self, name, nn.Linear(D, E, bias=bias, device=device, dtype=dtype))
        first = torch.arange(query_key_width // 2, device=device).repeat(groups, 1) if has_rotary else None
        self.register_buffer("pairs", first)
        self.q_norm = self.k_norm = None

    @classmethod
    def from_dense(cls, dense: DenseAttention) -> Self:
        """Return a module that holds copies of these weights: `dense.narrowed(...)` makes them narrow."""
        parts = (dense.query, dense.key, dense.value, dense.output)
        layer = cls(
            dense.query.weight.shape[1],
            heads=dense.heads,
            groups=dense.groups,
            query_key_width=dense.query_key_width,
            value_width=dense.value_width,
            scale=dense.scale,
            out_features=dense.output.weight.shape[0],
            biases=tuple(part.bias is not None for part in parts),  # type: ignore[arg-type]
            is_causal=dense.is_causal,
            has_rotary=dense.pairs is not None,
            dropout=dense.dropout,
            device="meta",
        )
        for child, part in zip(layer._children(), parts, strict=True):
            child.weight = nn.Parameter(part.weight.detach().clone())
            if part.bias is not None:
                child.bias = nn.Parameter(part.bias.detach().clone())
        if dense.pairs is not None:
            layer.pairs = dense.pairs.clone()
        return layer

    @property
    def dense(self) -> DenseAttention:
        """The weights and how they are used, as views; `dense.padded(K)` has heads of the original width."""
        q, k, v, o = (Projection(child.weight, child.bias) for child in self._children())
        return DenseAttention(q, k, v, o, self.heads, self.groups, self.scale, self.is_causal, self.pairs, self.dropout)

    def forward(
        self, x: Tensor, rotary: Rotary | None = None, *, mask: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Return what attention adds for each token, (B, T, E).

        Args:
            x: (B, T, D).
            rotary: cos and sin of every frequency at the tokens' positions, (T, P) or (B, T, P) each.
            mask: as in `narrows.attend`; in place of the causal rule, which it must then hold itself.
            cache: tokens before these, of this layer; these are added to it.
        """
        q, k, v = self.project(x, rotary)
        if cache is not None:
            k, v = cache.update(k, v)
        return self.o_proj(self.mix(q, k, v, mask))  # type: ignore[no-any-return]

    def project(self, x: Tensor, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return q (B, H, T, R), k (B, G, T, R) and v (B, G, T, F) of x (B, T, D), q and k turned."""
        q, k, v = (
            child(x).view(*x.shape[:-1], heads, -1)
            for child, heads in ((self.q_proj, self.heads), (self.k_proj, self.groups), (self.v_proj, self.groups))
        )
        q = q if self.q_norm is None else self.q_norm(q)
        k = k if self.k_norm is None else self.k_norm(k)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.pairs is None:
            return q, k, v
        if rotary is None:
            raise InputError("rotary is missing: give cos and sin, (T, P) each, of the tokens' positions.")
        cos, sin = (_chosen(part, self.pairs) for part in rotary)
        grouped = q.unflatten(1, (self.groups, -1))
        return _turned(grouped, cos[:, :, None], sin[:, :, None]).flatten(1, 2), _turned(k, cos, sin), v

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool | None = None) -> Tensor:
        """Return the mixed values of all heads side by side, (B, T, H F).

        Args:
            causal: what holds without a mask; None: `is_causal`.
        """
        is_causal = mask is None and (self.is_causal if causal is None else causal)
        if self.training and self.dropout > 0:
            mixed = _dropped(q, k, v, mask, causal=is_causal, scale=self.scale, dropout=self.dropout)
        else:
            mask = mask if mask is None or mask.dtype == torch.bool else mask.to(q.dtype)
            mixed = attend(q, k, v, scale=self.scale, mask=mask, causal=is_causal)
        return mixed.transpose(1, 2).flatten(-2)

    def extra_repr(self) -> str:
        """Return sizes and scale."""
        return (
            f"heads={self.heads}, groups={self.groups}, query_key_width={self.query_key_width}, "
            f"value_width={self.value_width}, scale={self.scale:.6g}, is_causal={self.is_causal}, "
            f"has_rotary={self.pairs is not None}"
        )

    def _children(self) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]:
        """Return the four linears, which must be plain: a changed child has no weight to speak of."""
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            child = self.get_submodule(name)
            if type(child) is not nn.Linear:
                raise InputError(f"{name} is {type(child).__name__}, not nn.Linear: merge or remove the adapter first.")
        return self.q_proj, self.k_proj, self.v_proj, self.o_proj  # type: ignore[return-value]


def _check_sizes(heads: int, groups: int, query_key_width: int, value_width: int, *, has_rotary: bool) -> None:
    if min(heads, groups, query_key_width, value_width) < 1 or heads % groups:
        raise ShapeError(
            f"heads={heads}, groups={groups}, query_key_width={query_key_width}, value_width={value_width} must be at "
            "least 1, groups dividing heads."
        )
    if has_rotary and query_key_width % 2:
        raise ShapeError(f"query_key_width={query_key_width} must be even: rotary positions turn pairs of features.")


def _chosen(every: Tensor, pairs: Tensor) -> Tensor:
    """Return (B or 1, G, T, R / 2), the frequencies of each key head, of (T, P) or (B, T, P)."""
    every = every if every.ndim == 3 else every[None]
    return every[..., pairs].transpose(1, 2)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return heads (..., T, R) with each pair (i, R / 2 + i) turned; in the wider dtype, rounded once."""
    first, second = x.chunk(2, dim=-1)
    turned = (first * cos).addcmul(second, sin, value=-1), (second * cos).addcmul(first, sin)
    return torch.cat(turned, dim=-1).to(x.dtype)


def _dropped(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool, scale: float, dropout: float
) -> Tensor:
    """Return attention with dropout, which `attend` has not, by torch's own; the last query sees the last key."""
    T, U = q.shape[2], k.shape[2]
    if causal and T != U:
        mask, causal = torch.ones(T, U, dtype=torch.bool, device=q.device).tril(U - T), False
    mixed: Tensor = nn.functional.scaled_dot_product_attention(
        q, k, v, mask, dropout, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return mixed
