"""ModelAttention: a LowRankAttention that a model of transformers calls as its own attention.

Letters: B batch, T tokens, U keys, H heads, G key heads, R and F widths of keys and values.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from narrows.errors import ImplementationError
from narrows.nn import LowRankAttention

if TYPE_CHECKING:
    from typing import Self

    from narrows.models.families._family import Family
    from narrows.nn import DenseAttention

IMPLEMENTATIONS = ("sdpa", "eager")
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj")


class ModelAttention(LowRankAttention):
    """Takes and returns what the attention of its family does; with other children of that, such as norms.

    Runs `narrows.attend` where the model's attention implementation is "sdpa" (transformers' default), and scores in
    full where it is "eager", which then also returns the attention weights.

    Attributes:
        family: knows the calling convention.
        config: the model's configuration; it names the attention implementation.
        layer_index: of this layer in a cache of transformers; None: its family has no cache.
    """

    family: Family
    config: Any
    layer_index: int | None
    _skeleton: tuple[nn.Module]

    @classmethod
    def in_place_of(cls, attention: nn.Module, dense: DenseAttention, family: Family) -> Self:
        """Return a module with these weights, and all else that `attention` has; that module is used up.

        Args:
            attention: of the model.
            dense: its weights, narrowed; on the meta device for a module without values.
        """
        layer = cls.from_dense(dense)
        layer.family, layer.config = family, family.config(attention)
        layer.layer_index = getattr(attention, "layer_idx", None)
        # Kept without values to know what `merge` returns; in a tuple, so that it is no child of this module.
        layer._skeleton = (deepcopy(attention).to("meta"),)  # noqa: SLF001 (its own class)
        for child, name in zip(LINEARS, family.layers, strict=True):
            asks = attention.get_submodule(name).weight.requires_grad
            layer.get_submodule(child).requires_grad_(bool(asks))
        family.adopt(layer, attention)
        return layer.train(attention.training)

    @property
    def skeleton(self) -> nn.Module:
        """The model's own attention, without values."""
        return self._skeleton[0]

    @property
    def rank(self) -> int:
        """R, the width of queries and keys."""
        return self.query_key_width

    def forward(self, *given: Any, **named: Any) -> Any:
        """Return what the family's attention returns."""
        return self.family.forward(self, *given, **named)

    def attended(
        self,
        x: Tensor,
        *,
        rotary: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        cache: Any = None,
        causal: bool | None = None,
        full: bool | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what attention adds, (B, T, E), and its weights (B, H, T, U) where they are held.

        Args:
            x: (B, T, D).
            rotary: cos and sin, (B, T, P).
            mask: as transformers makes it: None, bool, or added.
            cache: of transformers; any, for heads of any width can be stored.
            causal: what holds without a mask; None: `is_causal`.
            full: hold the scores and return the weights; None: as the model's attention implementation says.

        Raises:
            ImplementationError: the model's attention implementation is neither "sdpa" nor "eager".
        """
        q, k, v = self.project(x, rotary)
        if cache is not None:
            k, v = cache.update(k, v, self.layer_index)
        causal = self.is_causal if causal is None else causal
        T, U = q.shape[2], k.shape[2]
        if mask is None and causal and U > T > 1:
            # Without a mask transformers means a static cache that holds nothing but these tokens.
            k, v = k[:, :, :T], v[:, :, :T]
        if self._is_eager() if full is None else full:
            mixed, weights = _eager(self, q, k, v, mask, causal=causal)
        else:
            mixed, weights = self.mix(q, k, v, mask, causal=causal), None
        return self.o_proj(mixed), weights

    @torch.no_grad()
    def merge(self) -> nn.Module:
        """Return the model's own attention module with the same function: narrow heads padded with zeros."""
        attention = deepcopy(self.skeleton)
        width = self.family.sizes(attention).width
        self.family.write(attention, self.dense.padded(query_key=width, value=width))
        for child, name in zip(LINEARS, self.family.layers, strict=True):
            asks = self.get_submodule(child).weight.requires_grad
            attention.get_submodule(name).requires_grad_(bool(asks))
        self.family.give_back(self, attention)
        return attention.train(self.training)

    def _is_eager(self) -> bool:
        name = getattr(self.config, "_attn_implementation", None) or "eager"
        if name not in IMPLEMENTATIONS:
            raise ImplementationError(
                f"attn_implementation={name!r} does not run narrow heads: load the model with one of "
                f"{', '.join(IMPLEMENTATIONS)}."
            )
        return bool(name == "eager")


def _eager(
    layer: ModelAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """Return mixed values (B, T, H F) and the attention weights, with softmax in float32 as transformers has it."""
    share, (T, U) = layer.heads // layer.groups, (q.shape[2], k.shape[2])
    scores = q @ k.repeat_interleave(share, dim=1).mT * layer.scale
    if mask is None and causal and T > 1:
        mask = torch.ones(T, U, dtype=torch.bool, device=q.device).tril(U - T)
    if mask is not None:
        seen = mask[..., :U]
        scores = scores.masked_fill(~seen, torch.finfo(q.dtype).min) if seen.dtype == torch.bool else scores + seen
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
    weights = nn.functional.dropout(weights, layer.dropout, training=layer.training)
    mixed = weights @ v.repeat_interleave(share, dim=1)
    return mixed.transpose(1, 2).flatten(-2), weights
