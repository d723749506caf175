"""GPT-2: causal, learned positions, q, k and v in one layer, weights kept as (in, out)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from narrows.models.families._family import Family, HeadSizes, put
from narrows.nn import DenseAttention, Projection

if TYPE_CHECKING:
    from torch import Tensor

    from narrows.models._attention_module import ModelAttention

SPLIT = 3  # q, k and v side by side


class Gpt2(Family):
    """Its narrow form has q, k and v in layers of their own, as nn.Linear keeps them."""

    name = "gpt2"
    classes = ("GPT2Attention",)
    layers = ("c_attn", "c_attn", "c_attn", "c_proj")

    def refuses(self, attention: Any) -> str:
        """Return why nothing of this attention can be narrowed; empty when something can."""
        if attention.is_cross_attention:
            return "cross-attention: its keys and values are of another sequence"
        if attention.reorder_and_upcast_attn:
            return "its scores are computed in float32 in another order (reorder_and_upcast_attn)"
        return ""

    def sizes(self, attention: Any) -> HeadSizes:
        """Return the sizes of an attention module's heads."""
        return HeadSizes(
            attention.num_heads,
            attention.num_heads,
            attention.head_dim,
            scale=attention.scaling,
            is_causal=attention.is_causal,
            has_rotary=False,
            dropout=attention.attn_dropout.p,
        )

    def read(self, attention: Any) -> DenseAttention:
        """Return the weights of an attention module, as views with rows for features that come out."""
        joined, output = attention.c_attn, attention.c_proj
        parts = zip(joined.weight.t().chunk(SPLIT), joined.bias.chunk(SPLIT), strict=True)
        linears = [SimpleNamespace(weight=weight, bias=bias) for weight, bias in parts]
        return self.described(attention, [*linears, SimpleNamespace(weight=output.weight.t(), bias=output.bias)])

    def write(self, attention: Any, dense: DenseAttention) -> None:
        """Put weights into an attention module without values."""
        parts = (dense.query, dense.key, dense.value)
        joined = Projection(
            torch.cat([part.weight for part in parts]),
            torch.cat([part.bias for part in parts if part.bias is not None]),
        )
        put(attention.c_attn, joined, transpose=True)
        put(attention.c_proj, dense.output, transpose=True)

    def adopt(self, layer: ModelAttention, attention: Any) -> None:
        """Move the dropout that follows the output layer."""
        layer.resid_dropout = attention.resid_dropout

    @property
    def replaced(self) -> tuple[str, ...]:
        """Names of the weights that a narrow layer has under other names."""
        return ("c_attn.weight", "c_proj.weight")

    def forward(
        self,
        layer: ModelAttention,
        hidden_states: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attention's output and weights."""
        out, weights = layer.attended(hidden_states, mask=attention_mask, cache=past_key_values)
        return layer.resid_dropout(out), weights  # type: ignore[operator]
