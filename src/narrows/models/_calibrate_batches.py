"""Calibration windows in the portions that one forward pass takes.

Letters: N, B windows, T tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from narrows._files import sha256_tensor
from narrows.errors import DtypeError, InputError, ShapeError

Text = torch.Tensor | Sequence[Mapping[str, torch.Tensor]]
ONES = "attention_mask"


@dataclass(frozen=True, eq=False)
class Batch:
    """What one forward pass reads.

    Attributes:
        first: index of its first window.
        windows: B.
        inputs: token ids (B, T) int64, or a model's keyword arguments.
        mask: (B, T) bool, False for padding; None: no padding.
        tokens: how many the text has here without padding; where there are no token ids, windows.
    """

    first: int
    windows: int
    inputs: torch.Tensor | Mapping[str, torch.Tensor]
    mask: torch.Tensor | None
    tokens: int

    @property
    def indices(self) -> range:
        """Indices of its windows."""
        return range(self.first, self.first + self.windows)


def batches(text: Text, batch_rows: int) -> tuple[Batch, ...]:
    """Return the portions of a text in order: at most `batch_rows` tokens, and at least one window, each.

    Raises:
        InputError, ShapeError, DtypeError: no windows, or not of the form that `calibrate` asks for.
    """
    if batch_rows < 1:
        raise InputError(f"batch_rows={batch_rows} must be at least 1 (tokens in one forward pass).")
    if not isinstance(text, torch.Tensor):
        return _given(text)
    if text.ndim != 2 or not text.numel():
        raise ShapeError(f"windows {tuple(text.shape)} must be (N, T) token ids, neither of them 0.")
    if text.dtype != torch.int64:
        raise DtypeError(f"windows are {text.dtype}: token ids must be torch.int64.")
    B = max(1, batch_rows // text.shape[1])
    return tuple(
        Batch(first, len(ids_BT), ids_BT, None, ids_BT.numel())
        for first, ids_BT in ((i, text[i : i + B]) for i in range(0, len(text), B))
    )


def text_hash(text: Text) -> str:
    """Return 64 hex digits that stand for the windows' content."""
    if isinstance(text, torch.Tensor):
        return sha256_tensor(text)
    digest = hashlib.sha256()
    for window in text:
        for name in sorted(window):
            digest.update(f"{name} {sha256_tensor(window[name])} ".encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _given(text: Sequence[Mapping[str, torch.Tensor]]) -> tuple[Batch, ...]:
    if not text:
        raise InputError("there are no calibration windows: give at least one.")
    made: list[Batch] = []
    for i, inputs in enumerate(text):
        sizes = {name: tuple(one.shape) for name, one in inputs.items()}
        B = next((size[0] for size in sizes.values() if size), 0)
        if not B:
            raise ShapeError(f"calibration window {i} has {sizes}: tensors with a leading batch dimension are needed.")
        first = made[-1].first + made[-1].windows if made else 0
        made.append(_one(first, B, inputs))
    return tuple(made)


def _one(first: int, B: int, inputs: Mapping[str, torch.Tensor]) -> Batch:
    ones, ids = inputs.get(ONES), inputs.get("input_ids")
    mask = None if ones is None or ones.ndim != 2 or bool(ones.all()) else ones != 0
    tokens = B if ids is None else ids.numel() if mask is None else int(mask.sum())
    return Batch(first, B, inputs, mask, tokens)
