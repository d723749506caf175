"""Gated feed-forward layers, down(act(gate(x)) * up(x)): gate and up read one input and may share a projection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

MEMBERS = ("gate_proj", "up_proj")
OTHERS = ("down_proj", "act_fn")
# Classes of transformers whose forward is this one line and whose children have these names.
CLASSES = frozenset(
    {
        "CohereMLP",
        "Gemma2MLP",
        "Gemma3MLP",
        "GemmaMLP",
        "GraniteMLP",
        "HeliumMLP",
        "LlamaMLP",
        "MinistralMLP",
        "MistralMLP",
        "Olmo2MLP",
        "Olmo3MLP",
        "OlmoMLP",
        "Qwen2MLP",
        "Qwen3MLP",
        "SmolLM3MLP",
    }
)


def is_gated(module: nn.Module) -> bool:
    """Return whether a module is a gated feed-forward layer of a known family."""
    kind = type(module)
    return kind.__name__ in CLASSES and kind.__module__.startswith("transformers.")
