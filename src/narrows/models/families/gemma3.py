"""Gemma 3: as Llama, with norms of queries and keys, and a scale of its own."""

from __future__ import annotations

from typing import Any, ClassVar

from narrows.models.families.llama import Llama


class Gemma3(Llama):
    """Its values can be narrowed; sliding windows are in the mask that transformers makes."""

    name = "gemma3"
    classes: ClassVar[tuple[str, ...]] = ("Gemma3Attention",)

    def refuses(self, attention: Any) -> str:
        """Return why nothing of this attention can be narrowed; empty when something can."""
        if attention.attn_logit_softcapping is not None:
            return f"its scores are capped at {attention.attn_logit_softcapping}, which narrow attention does not do"
        return ""
