"""What a causal model writes after a prompt, always taking the likeliest token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

NEW_TOKENS = 40
PROMPT_TOKENS = 32


def prompt_of(document: str, tokenizer: Any) -> str:
    """Return the first 32 tokens of a document as text."""
    ids = tokenizer(document, add_special_tokens=False, truncation=True, max_length=PROMPT_TOKENS)["input_ids"]
    return str(tokenizer.decode(ids))


@torch.inference_mode()
def greedy(model: nn.Module, tokenizer: Any, prompt: str, *, tokens: int = NEW_TOKENS) -> str:
    """Return at most `tokens` new tokens as text; it ends early where the model ends its text.

    The model's own generation settings (temperature, penalties) are not used, so two runs write the same.

    Args:
        model: causal, of transformers.
        tokenizer: of that model.
        prompt: a text of at least one token.
        tokens: how many at most.
    """
    device = next(model.parameters()).device
    ids_1T = tokenizer(prompt, return_tensors="pt")["input_ids"].to(device)
    cache: Any = None
    written: list[int] = []
    ends = {tokenizer.eos_token_id}
    while len(written) < tokens:
        out = model(input_ids=ids_1T, past_key_values=cache, use_cache=True)
        cache, ids_1T = out.past_key_values, out.logits[:, -1:].argmax(dim=-1)
        if int(ids_1T) in ends:
            break
        written.append(int(ids_1T))
    return str(tokenizer.decode(written, skip_special_tokens=True))
