"""BERT and MPNet: bidirectional, learned positions (MPNet: and a bias of the scores by distance), biases everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from narrows.models.families._family import Family, HeadSizes

if TYPE_CHECKING:
    from torch import Tensor

    from narrows.models._attention_module import ModelAttention


class Bert(Family):
    """Takes the place of BertAttention: heads, output layer, and the norm after it, which stays."""

    name = "bert"
    classes = ("BertAttention",)
    layers = ("self.query", "self.key", "self.value", "output.dense")

    def refuses(self, attention: Any) -> str:
        """Return why nothing of this attention can be narrowed; empty when something can."""
        if attention.is_cross_attention or attention.self.is_decoder:
            return "attention of a BERT that is a decoder: only encoders are known"
        return ""

    def sizes(self, attention: Any) -> HeadSizes:
        """Return the sizes of an attention module's heads."""
        inner = attention.self
        return HeadSizes(
            inner.num_attention_heads,
            inner.num_attention_heads,
            inner.attention_head_size,
            scale=inner.scaling,
            is_causal=False,
            has_rotary=False,
            dropout=inner.dropout.p,
        )

    def config(self, attention: Any) -> Any:
        """Return the configuration that names the attention implementation."""
        return attention.self.config

    def adopt(self, layer: ModelAttention, attention: Any) -> None:
        """Move the norm; the output layer before it is the narrow layer's own."""
        after = attention.output
        after.dense = nn.Identity()
        layer.output = after

    def give_back(self, layer: ModelAttention, attention: Any) -> None:
        """Move the norm back."""
        attention.output.LayerNorm = layer.output.LayerNorm  # type: ignore[union-attr]

    def forward(
        self, layer: ModelAttention, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the normed sum of input and attention, and the attention's weights."""
        out, weights = layer.attended(hidden_states, mask=attention_mask)
        return layer.output(out, hidden_states), weights  # type: ignore[operator]


class MPNet(Family):
    """Adds a learned bias by distance to the scores: narrow heads leave it as it is."""

    name = "mpnet"
    classes = ("MPNetSelfAttention",)
    layers = ("q", "k", "v", "o")

    def sizes(self, attention: Any) -> HeadSizes:
        """Return the sizes of an attention module's heads."""
        return HeadSizes(
            attention.num_attention_heads,
            attention.num_attention_heads,
            attention.attention_head_size,
            scale=attention.attention_head_size**-0.5,
            is_causal=False,
            has_rotary=False,
            dropout=attention.dropout.p,
        )

    def forward(
        self,
        layer: ModelAttention,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **_: Any,
    ) -> tuple[Tensor, ...]:
        """Return the attention's output, and its weights where they are asked for."""
        parts = [part for part in (attention_mask, position_bias) if part is not None]
        mask = parts[0] + parts[1] if len(parts) > 1 else next(iter(parts), None)
        out, weights = layer.attended(hidden_states, mask=mask, full=output_attentions)
        return (out,) if weights is None else (out, weights)
