"""Folders of tiny models, dense and compressed, made here, and what reads them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from narrows._files import read_tensor, tensor_shapes
from narrows._files._digest import sha256_tensor
from soak.files.change import Change
from soak.files.json import changed_json
from soak.files.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from narrows._values import LayerChoice, ModelPlan

MANIFEST, CONFIG = "narrows.json", "config.json"
SEAL_END = b'"\n}\n'
SIZES: dict[str, Any] = {
    "vocab_size": 8,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
}


def subjects() -> list[Subject]:
    """Return the kinds of folders: dense ones and compressed ones, each read by its readers and loaded whole."""
    dense, other_dense = (files_of(seed, is_compressed=False) for seed in (1, 2))
    compressed, other_compressed = (files_of(seed, is_compressed=True) for seed in (1, 2))
    changed = tuple(name for name in dense if name.endswith((".safetensors", "index.json")))
    sealed = tuple(name for name in compressed if name != "README.md")
    payload = {name: (payload_of(data),) for name, data in compressed.items() if name.endswith(".safetensors")}
    smallest = min(payload, key=lambda name: len(compressed[name]))
    bits = {MANIFEST: (range(len(compressed[MANIFEST])),), smallest: payload[smallest]}
    return [
        Subject(
            name="shards",
            share=0.10,
            files=dense,
            others=other_dense,
            read=read_shards,
            is_sealed=False,
            is_folder=True,
            changed=changed,
        ),
        Subject(
            name="compressed",
            share=0.12,
            files=compressed,
            others=other_compressed,
            read=read_compressed,
            is_sealed=True,
            is_folder=True,
            changed=sealed,
            forge=forged,
            bits=bits,
        ),
        Subject(
            name="tokenizer",
            share=0.02,
            files=tokenizer_files("narrow"),
            others=tokenizer_files("wide"),
            read=read_tokenizer,
            is_sealed=False,
            is_folder=True,
        ),
        Subject(
            name="load-dense",
            share=0.04,
            files=dense,
            others=other_dense,
            read=read_model,
            is_sealed=False,
            is_folder=True,
        ),
        Subject(
            name="load-compressed",
            share=0.05,
            files=compressed,
            others=other_compressed,
            read=read_model,
            is_sealed=True,
            is_folder=True,
            changed=sealed,
            forge=forged,
        ),
    ]


def files_of(seed: int, *, is_compressed: bool) -> dict[str, bytes]:
    """Return the files of a model of one block, in two shards or more; another seed gives other weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    with tempfile.TemporaryDirectory(prefix="narrows-soak-") as made:
        folder = Path(made) / "model"
        if is_compressed:
            _save_compressed(model, folder)
        else:
            model.save_pretrained(folder, max_shard_size="1KB")
        return {one.name: one.read_bytes() for one in sorted(folder.iterdir())}


def _save_compressed(model: Any, folder: Path) -> None:
    from narrows import factorize
    from narrows.models import apply_, save

    linears = [(name, one) for name, one in model.named_modules() if type(one) is nn.Linear and name != "lm_head"]
    ranks = {name: min(one.weight.shape) // 2 for name, one in linears[:3]}
    plan = _plan([_choice(name, one, ranks.get(name)) for name, one in linears])
    apply_(model, plan, {name: factorize(model.get_submodule(name).weight, rank=rank) for name, rank in ranks.items()})
    save(model, folder, plan=plan, certificate={"perplexity": 1.5}, max_shard_size="1KB")


def _choice(name: str, layer: nn.Linear, rank: int | None) -> LayerChoice:
    from narrows._values import LayerChoice, LayerOption

    E, D = layer.weight.shape
    dense = LayerOption("dense", None, D * E, 4 * D * E, 0.0)
    numbers = (rank or 0) * (D + E)
    chosen = dense if rank is None else LayerOption("low-rank", rank, numbers, 4 * numbers, 0.01)
    return LayerChoice(name, D, E, chosen, dense, "as the soak chose")


def _plan(choices: list[LayerChoice]) -> ModelPlan:
    from narrows._values import ModelBudget, ModelPlan, Workload

    return ModelPlan(
        tuple(choices),
        ModelBudget(keep=0.9),
        (Workload("prefill", 64),),
        dtype="float32",
        method="two-sided",
        other_ns=None,
        fingerprint="f",
        device_name="a CPU",
        version="0",
    )


def payload_of(tensors: bytes) -> range:
    """Return the bytes of a safetensors file that hold its tensors."""
    return range(8 + int.from_bytes(tensors[:8], "little"), len(tensors))


def read_shards(folder: Path) -> str:
    """Return what the tensors of a dense folder hold."""
    shapes = tensor_shapes(folder)
    kept = [f"{name} {sha256_tensor(read_tensor(folder, name))}" for name, shape in shapes.items() if len(shape) == 2]
    return f"{shapes} {kept}"


def read_compressed(folder: Path) -> str:
    """Return what the manifest of a compressed folder says, everything compared with it."""
    from narrows.models import verified

    return repr(verified(folder))


def read_model(folder: Path) -> str:
    """Return what a loaded model holds."""
    from narrows import load

    model = load(folder)
    held = [f"{name} {sha256_tensor(tensor)}" for name, tensor in model.state_dict().items()]
    return f"{type(model).__name__} {held}"


def tokenizer_files(word: str) -> dict[str, bytes]:
    """Return the files of a tokenizer that knows a word more than letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate([*letters, word])}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with tempfile.TemporaryDirectory(prefix="narrows-soak-") as folder:
        PreTrainedTokenizerFast(tokenizer_object=made, eos_token=word).save_pretrained(folder)
        found = {one.name: one.read_bytes() for one in sorted(Path(folder).iterdir())}
    return {"config.json": json.dumps({"model_type": "llama"}).encode(), **found}


def read_tokenizer(folder: Path) -> str:
    """Return what the tokenizer of a folder makes of a text."""
    from narrows.models._check_inputs import open_tokenizer

    return repr(sorted(open_tokenizer(None, folder).get_vocab().items()))


def forged(files: Mapping[str, bytes], rng: Random) -> Change:
    """Change the manifest or the configuration and make all digests anew, as somebody who means harm would."""
    manifest = json.loads(files[MANIFEST])
    if rng.random() < 0.6:
        said, text = changed_json(json.dumps({**manifest, "sha256": ""}, indent=1).encode(), rng)
        return Change(f"{MANIFEST}, sealed again: {said}", {MANIFEST: _sealed(text)}, may_differ=True)
    said, config = changed_json(files[CONFIG], rng)
    manifest["files"][CONFIG] = hashlib.sha256(config).hexdigest()
    text = json.dumps({**manifest, "sha256": ""}, indent=1).encode()
    return Change(f"{CONFIG}, sealed again: {said}", {CONFIG: config, MANIFEST: _sealed(text)}, may_differ=True)


def _sealed(text: bytes) -> bytes:
    """Return a manifest with its seal in the place that narrows gives it; without one, where the key is gone."""
    place = b'"sha256": ""'
    if not text.endswith(place + b"}"):
        return text
    before = text.removesuffix(b'"}')
    seal = hashlib.sha256(before + SEAL_END).hexdigest().encode()
    return before + seal + SEAL_END
