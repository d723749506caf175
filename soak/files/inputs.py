"""Files that a user names: weights, arrays, texts; nothing vouches for their content."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save

from narrows._files import read_tensor, tensor_shapes
from narrows._files._digest import sha256_tensor
from soak.files.records import verb
from soak.files.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WORDS = ("narrow", "wide", "ship", "sail", "island", "harbour", "sun", "moon", "tide", "shore")


def subjects() -> list[Subject]:
    """Return the kinds of such files."""
    weights = "weights.safetensors"
    kinds: list[tuple[str, float, Callable[[int], bytes], Callable[[Path], str]]] = [
        (weights, 0.12, _tensors, read_weights),
        ("activations.npy", 0.04, _array, read_array),
        ("texts.jsonl", 0.03, _lines, read_texts),
        ("book.txt", 0.01, _book, read_texts),
        ("labels.jsonl", 0.02, _labels, read_labels),
        ("pairs.tsv", 0.01, _pairs, read_pairs),
    ]
    read = [(name, share, name, make, _named(name, read)) for name, share, make, read in kinds]
    read.append(("narrows-spectrum", 0.01, weights, _tensors, verb(weights, ("spectrum", "{file}", "--json"))))
    return [
        Subject(name=name, share=share, files={file: make(1)}, others={file: make(2)}, read=reader, is_sealed=False)
        for name, share, file, make, reader in read
    ]


def _named(name: str, read: Callable[[Path], str]) -> Callable[[Path], str]:
    return lambda folder: read(folder / name)


def _tensors(seed: int) -> bytes:
    draw = torch.Generator().manual_seed(seed)
    made = {"a.weight": torch.randn(4, 3, generator=draw), "b.weight": torch.randn(4, 3, generator=draw).bfloat16()}
    return bytes(save({**made, "c": torch.arange(5), "none": torch.empty(0, 4)}, metadata={"format": "pt"}))


def _array(seed: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(seed).standard_normal((3, 5)), allow_pickle=False)
    return buffer.getvalue()


def _lines(seed: int) -> bytes:
    rows = [json.dumps({"text": f"{seed}. {word} and {word}.", "source": {"page": i}}) for i, word in enumerate(WORDS)]
    return "\n".join(rows).encode()


def _book(seed: int) -> bytes:
    return "\n\n".join(f"Chapter {seed}.{i}\n{' '.join(WORDS)} \u00e9t\u00e9." for i in range(6)).encode()


def _labels(seed: int) -> bytes:
    rows = [json.dumps({"text": f"{word} {seed}", "label": i % 2}) for i, word in enumerate((*WORDS, *WORDS))]
    return "\n".join(rows).encode()


def _pairs(seed: int) -> bytes:
    return "\n".join(f"{word}\t{word}s\t{seed + i / 7:.2f}" for i, word in enumerate((*WORDS, *WORDS))).encode()


def read_weights(file: Path) -> str:
    """Return the tensors of a safetensors file."""
    shapes = tensor_shapes(file)
    held = [f"{name} {sha256_tensor(read_tensor(file, name))}" for name, shape in shapes.items() if len(shape) == 2]
    return f"{shapes} {held}"


def read_array(file: Path) -> str:
    """Return the array of a .npy file."""
    return f"{tensor_shapes(file)} {sha256_tensor(read_tensor(file, ''))}"


def read_texts(file: Path) -> str:
    """Return the documents of a text file."""
    from narrows.models._texts import read_documents

    return repr(read_documents(file))


def read_labels(file: Path) -> str:
    """Return the labelled lines of a file."""
    from narrows.models._check_data import read_labelled

    return repr(read_labelled(file))


def read_pairs(file: Path) -> str:
    """Return the word pairs of a file."""
    from narrows.models import _check_data

    return repr(_check_data.read_pairs(file))
