"""What a check is given: two models, loaded here or handed over, and their tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from narrows._files._locate import shards, single
from narrows._machine import machine
from narrows._values import dtype_name
from narrows._values._foreign import shown
from narrows.errors import FileError, InputError
from narrows.models._load import check_entries, load
from narrows.models._manifest import read_manifest

if TYPE_CHECKING:
    from narrows.models._manifest import Manifest

Given = str | Path | nn.Module


@dataclass(frozen=True, eq=False)
class Opened:
    """A model that is ready to run.

    Attributes:
        name: its folder's path, or its class.
        disk_bytes: of its files of weights; None for a model that was handed over.
        manifest: of a compressed folder.
    """

    model: nn.Module
    name: str
    disk_bytes: int | None = None
    manifest: Manifest | None = None


def open_model(given: Given, *, device: str, dtype: str | None, is_compressed: bool) -> Opened:
    """Return a model, loaded from a folder or as it was handed over.

    Args:
        given: a folder or a model.
        device: "cpu", "cuda" or "cuda:1", for a folder.
        dtype: "float32" or another, for a folder; None: as saved.
        is_compressed: a folder must be one that narrows wrote.

    Raises:
        FileError: the folder holds no such model, or does not match its manifest.
        DeviceError, DtypeError: there is no such device or dtype.
    """
    if isinstance(given, nn.Module):
        return Opened(given, type(given).__name__)
    machine(device)  # says which devices there are, before minutes are spent on loading
    folder = Path(given)
    if not folder.is_dir():
        raise FileError(f"{folder} is not a folder on this machine. Give the folder of a model.")
    manifest = read_manifest(folder) if is_compressed else None
    wanted = None if dtype is None else getattr(torch, dtype_name(dtype))
    loaded = load(folder, device=device, dtype=wanted)
    return Opened(loaded, str(folder), _bytes_on_disk(folder), manifest)


def open_tokenizer(given: Any, *models: Given) -> Any:
    """Return the tokenizer that was handed over, or that of the first model that is a folder.

    Raises:
        InputError: there is neither.
        FileError: the folder has no tokenizer.
    """
    if given is not None:
        return given
    folders = [model for model in models if not isinstance(model, nn.Module)]
    if not folders:
        raise InputError("tokenizer=None: models that are handed over bring no tokenizer. Give the one of the model.")
    from transformers import AutoTokenizer

    check_entries(Path(folders[0]))
    try:
        return AutoTokenizer.from_pretrained(str(folders[0]), trust_remote_code=False, local_files_only=True)
    except Exception as fault:  # of files that nobody vouches for, anything may be raised
        raise FileError(f"{folders[0]} has no tokenizer that transformers reads: {_first_line(fault)}") from fault


def _bytes_on_disk(folder: Path) -> int:
    """Return the bytes of a model's safetensors files."""
    files = set((shards(folder) or {"": single(folder)}).values())
    return sum(path.stat().st_size for path in files)


def _first_line(fault: Exception) -> str:
    return shown((str(fault).strip().splitlines() or [type(fault).__name__])[0], 300)
