"""Tiny transformers with random weights and a tokenizer of bytes, built here: no download.

Every model has 2 blocks and a hidden size of 32, so that a forward takes milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN = 32
VOCABULARY = 259  # 256 bytes and three marks


def llama(**changes: Any) -> Any:
    """Return a Llama: grouped-query (4 heads, 2 key heads), RoPE, SwiGLU, tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return _made(LlamaForCausalLM, LlamaConfig, **(_DECODER | {"tie_word_embeddings": True} | changes))


def qwen2(**changes: Any) -> Any:
    """Return a Qwen2: Llama-like with biases on q, k, v."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return _made(Qwen2ForCausalLM, Qwen2Config, **(_DECODER | changes))


def qwen3(**changes: Any) -> Any:
    """Return a Qwen3: Llama-like with q and k norms and a head size of its own."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return _made(Qwen3ForCausalLM, Qwen3Config, **(_DECODER | {"head_dim": 16} | changes))


def mistral(**changes: Any) -> Any:
    """Return a Mistral: Llama-like."""
    from transformers import MistralConfig, MistralForCausalLM

    return _made(MistralForCausalLM, MistralConfig, **(_DECODER | changes))


def gemma3(**changes: Any) -> Any:
    """Return a Gemma 3 (text): q and k norms, sliding windows, embeddings scaled and tied."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    return _made(Gemma3ForCausalLM, Gemma3TextConfig, **(_DECODER | {"head_dim": 8} | changes))


def gpt2(**changes: Any) -> Any:
    """Return a GPT-2: Conv1D layers (in, out), learned positions, q k v in one layer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": VOCABULARY, "n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_positions": 128}
    return _made(GPT2LMHeadModel, GPT2Config, **(sizes | {"bos_token_id": 256, "eos_token_id": 257} | changes))


def bert(**changes: Any) -> Any:
    """Return a BERT encoder (4 heads, biases everywhere, no RoPE)."""
    from transformers import BertConfig, BertModel

    return _made(BertModel, BertConfig, **(_ENCODER | changes))


def vit(**changes: Any) -> Any:
    """Return a ViT encoder for 16 x 16 images of one channel."""
    from transformers import ViTConfig, ViTModel

    sizes = {key: value for key, value in _ENCODER.items() if key not in {"vocab_size", "max_position_embeddings"}}
    return _made(ViTModel, ViTConfig, **(sizes | {"image_size": 16, "patch_size": 4, "num_channels": 1} | changes))


def tokenizer() -> Any:
    """Return a fast tokenizer whose tokens are bytes; 256 begins, 257 ends and 258 pads a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")  # noqa: S106


def folder(model: Any, path: Path) -> Path:
    """Save a model and the tokenizer of bytes into a folder, and return it."""
    model.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def texts(number: int = 12, words: int = 120, seed: int = 0) -> list[str]:
    """Return different documents of words drawn from a short list, so that there is something to learn."""
    names = [
        "the",
        "a",
        "narrow",
        "wide",
        "strait",
        "ship",
        "sails",
        "past",
        "island",
        "harbour",
        "under",
        "low",
        "high",
        "sun",
        "moon",
        "and",
        "or",
        "of",
        "in",
        "to",
    ]
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(names), (number, words), generator=generator)
    return [f"Document {seed}.{i}. " + " ".join(names[j] for j in row) for i, row in enumerate(picks.tolist())]


_DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
}
_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def _made(kind: Any, configuration: Any, **sizes: Any) -> Any:
    torch.manual_seed(0)
    return kind(configuration(**sizes)).eval()
