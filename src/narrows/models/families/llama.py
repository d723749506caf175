"""Llama, Mistral, Qwen2 and Qwen3: grouped queries, rotary positions, four linear layers without or with biases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from narrows.models.families._family import Family, HeadSizes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from narrows.models._attention_module import ModelAttention

NORMS = ("q_norm", "k_norm")


class Llama(Family):
    """Qwen3 normalises each whole head after the projection: its queries and keys keep their width."""

    name = "llama"
    classes: ClassVar[tuple[str, ...]] = ("LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention")
    layers = ("q_proj", "k_proj", "v_proj", "o_proj")

    def sizes(self, attention: Any) -> HeadSizes:
        """Return the sizes of an attention module's heads."""
        config = attention.config
        return HeadSizes(
            config.num_attention_heads,
            config.num_key_value_heads,
            attention.head_dim,
            scale=attention.scaling,
            is_causal=attention.is_causal,
            has_rotary=True,
            dropout=attention.attention_dropout,
        )

    def refuses_query_key(self, attention: Any) -> str:
        """Return why queries and keys must keep their width; empty when they need not."""
        if hasattr(attention, "q_norm"):
            return "q_norm and k_norm divide each head by its length, which a narrower head does not have"
        return ""

    def frequencies(self, model: nn.Module, attention: Any) -> Tensor | None:
        """Return the frequencies of the rotary embedding that has the attention's configuration."""
        for module in model.modules():
            found = getattr(module, "inv_freq", None)
            if found is not None and getattr(module, "config", None) is attention.config:
                return found  # type: ignore[no-any-return]
        return None

    def adopt(self, layer: ModelAttention, attention: Any) -> None:
        """Move the norms of queries and keys, where there are any."""
        for name in NORMS:
            setattr(layer, name, getattr(attention, name, None))

    def give_back(self, layer: ModelAttention, attention: Any) -> None:
        """Move them back."""
        for name in NORMS:
            if getattr(layer, name) is not None:
                setattr(attention, name, getattr(layer, name))

    def forward(
        self,
        layer: ModelAttention,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **named: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attention's output and weights; cos and sin come as two equal halves of one head."""
        cos, sin = (part[..., : part.shape[-1] // 2] for part in position_embeddings)
        return layer.attended(
            hidden_states,
            rotary=(cos, sin),
            mask=attention_mask,
            cache=past_key_values,
            causal=named.get("is_causal"),
        )
