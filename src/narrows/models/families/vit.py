"""ViT: bidirectional, learned positions, four linear layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from narrows.models.families._family import Family, HeadSizes

if TYPE_CHECKING:
    from torch import Tensor

    from narrows.models._attention_module import ModelAttention


class Vit(Family):
    """Attention between the patches of an image."""

    name = "vit"
    classes = ("ViTAttention",)
    layers = ("q_proj", "k_proj", "v_proj", "o_proj")

    def sizes(self, attention: Any) -> HeadSizes:
        """Return the sizes of an attention module's heads."""
        heads = attention.num_attention_heads
        return HeadSizes(
            heads,
            heads,
            attention.head_dim,
            scale=attention.scaling,
            is_causal=False,
            has_rotary=False,
            dropout=attention.attention_dropout,
        )

    def forward(
        self, layer: ModelAttention, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attention's output and weights."""
        return layer.attended(hidden_states, mask=attention_mask)
