"""A compressed model as a folder that transformers reads, whole or not there at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from narrows._files._folder import whole_folder
from narrows.errors import FileError, InputError, ResourceError
from narrows.models._card import card
from narrows.models._forms import FORMS, compressed_layers
from narrows.models._manifest import (
    MANIFEST,
    Manifest,
    SourceRecord,
    layer_record,
    read_manifest,
    sha256_file,
    shard_records,
)
from narrows.models._quantizer import mark
from narrows.nn._plain import is_plain_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike

    from narrows._values import ModelPlan

CARD = "README.md"
CONFIG = "config.json"
SHARD = ".safetensors"
_OF_A_MODEL = frozenset({".json", SHARD, ".md", ".txt", ".jinja", ".model"})
_SPARE = 1 << 20  # bytes for the other files


def save(
    model: nn.Module,
    folder: str | PathLike[str],
    *,
    plan: ModelPlan | None,
    certificate: Mapping[str, Any],
    source: str | None = None,
    tokenizer: Any = None,
    max_shard_size: int | str | None = None,
) -> Path:
    """Write a model, compressed or left dense, into a folder that simply loads; return the folder.

    The folder is that of transformers (config.json, safetensors shards, generation_config.json,
    tokenizer), with narrows.json (layers, plan, certificate, digests) and a model card. It takes the
    place of a model's folder of that name in one step; on any failure that one stays.

    Args:
        model: a model of transformers; tied weights stay tied.
        folder: its parent must exist. A folder with anything else than a model in it is not replaced.
        plan, certificate: kept in narrows.json and told in the card; the certificate is plain JSON. A model that is
            narrow in its attention only has no plan: None.
        source: folder or name of the dense model; of a folder the SHA-256 is kept.
        tokenizer: anything with `save_pretrained` that belongs to the model.
        max_shard_size: bytes, or text like "5GB"; None: as transformers.

    Raises:
        InputError: not a model of transformers, adapters or quantised layers in it, weights without values.
        FileError: the folder holds something else than a model, or may not be written to.
        ResourceError: the disk is full, or too small.
    """
    checked = _checked(model)
    measured = _plain_json(certificate)
    check_output(folder)
    origin = _origin(source)
    mark(model)
    _check_space(model, Path(folder))
    with whole_folder(folder) as made:
        _write_weights(checked, made, max_shard_size)
        if tokenizer is not None:
            with _system_errors():
                tokenizer.save_pretrained(made)
        manifest = _described(checked, made, plan, measured, origin)
        (made / MANIFEST).write_bytes(manifest.to_bytes())
        (made / CARD).write_text(card(manifest), encoding="utf-8")
    return Path(folder)


def check_output(folder: str | PathLike[str]) -> None:
    """Pass a folder that `save` may write: not there, empty, or a model's and nothing else.

    Raises:
        FileError: it holds files that are no part of a model, its parent is missing, or it is no folder.
    """
    path = Path(folder)
    if not path.absolute().parent.is_dir():
        raise FileError(f"{path} was not written: the folder {path.absolute().parent} does not exist. Make it first.")
    if not os.access(path.absolute().parent, os.W_OK):
        raise FileError(f"{path} was not written: no permission in {path.absolute().parent}. Give another path.")
    if not path.exists():
        return
    if not path.is_dir():
        raise FileError(f"{path} is not a folder: it will not be replaced. Give another path.")
    foreign = _foreign(path)
    if foreign:
        raise FileError(
            f"{path} holds {', '.join(foreign[:3])}{' and more' if len(foreign) > 3 else ''}, not only a model: it "
            "will not be replaced. Give another path, or move these away."
        )


def _foreign(folder: Path) -> list[str]:
    """Return what would be lost with a folder beside the model in it."""
    names = sorted(one.name for one in folder.iterdir())
    if not names:
        return []
    if CONFIG not in names:
        return names
    with suppress(FileError):  # a broken manifest tells nothing, and its folder may be replaced as any model's
        manifest = read_manifest(folder)
        known = {MANIFEST, CARD, *manifest.files, *(one.file for one in manifest.tensors.values())}
        return [name for name in names if name not in known]
    return [name for name in names if (folder / name).is_dir() or Path(name).suffix not in _OF_A_MODEL]


def _checked(model: nn.Module) -> Any:
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"a {type(model).__name__} is not a model of transformers: only such are saved as a folder.")
    if getattr(model, "_hf_peft_config_loaded", False):
        raise InputError("the model carries adapters: merge them into it, or save them by themselves, then save.")
    if model.is_remote_code():
        raise InputError(f"{type(model).__name__} is code from a hub, which narrows neither writes nor runs.")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta:
            raise InputError(f"{name} is on the meta device, without values: load the model fully before saving.")
    for name, form, layer in compressed_layers(model):
        _check_plain(name, form, layer)
    return model


def _check_plain(name: str, form: str, layer: nn.Module) -> None:
    """Raise InputError unless a layer holds what its form says: no adapter, no quantised weight."""
    for child in FORMS[form].linears:
        found = layer.get_submodule(child)
        if type(found) is not nn.Linear:
            raise InputError(f"{name}.{child} is {type(found).__name__}: merge or remove the adapter, then save.")
    for key, tensor in layer.named_parameters():
        if not (tensor.is_floating_point() and is_plain_tensor(tensor.data)):
            raise InputError(f"{name}.{key} is {type(tensor.data).__name__} of {tensor.dtype}: save before quantising.")


def _check_space(model: nn.Module, folder: Path) -> None:
    held = {id(tensor): tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()]}
    needed = sum(held.values()) + _SPARE
    free = shutil.disk_usage(folder.absolute().parent).free
    if needed > free:
        raise ResourceError(
            f"{folder} needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free (a folder that is replaced stays "
            "until the new one is whole). Free some space, or give another path."
        )


def _write_weights(model: Any, made: Path, max_shard_size: int | str | None) -> None:
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.is_saving = True
    try:
        with _system_errors():
            model.save_pretrained(made, **({} if max_shard_size is None else {"max_shard_size": max_shard_size}))
    finally:
        if quantizer is not None:
            quantizer.is_saving = False


@contextmanager
def _system_errors() -> Iterator[None]:
    """Turn what Rust says of the disk, "... (os error 28)", into Python's error for it; tokenizers raises Exception."""
    try:
        yield
    except Exception as fault:
        number = re.search(r"\(os error (\d+)\)", str(fault))
        if isinstance(fault, OSError) or (number is None and not isinstance(fault, SafetensorError)):
            raise
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code)) from fault


def _described(
    model: Any, made: Path, plan: ModelPlan | None, certificate: dict[str, Any], origin: SourceRecord | None
) -> Manifest:
    from narrows import __version__

    names = sorted(one.name for one in made.iterdir())
    return Manifest(
        version=__version__,
        architecture=type(model).__name__,
        layers={name: layer_record(model, name, form, layer) for name, form, layer in compressed_layers(model)},
        tensors=shard_records(made, [name for name in names if name.endswith(SHARD)]),
        files={name: sha256_file(made / name) for name in names if not name.endswith(SHARD) and name != CARD},
        plan=plan,
        certificate=certificate,
        source=origin,
    )


def _plain_json(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """Return the certificate as it will be read back."""
    try:
        told: dict[str, Any] = json.loads(json.dumps(dict(certificate), allow_nan=False))
    except (TypeError, ValueError) as fault:
        raise InputError(f"certificate: {fault}. Give plain finite numbers, texts, lists and mappings.") from None
    return told


def _origin(source: str | None) -> SourceRecord | None:
    """Return what is kept of the dense model; of a folder its own name, not where it lies here."""
    if source is None:
        return None
    folder = Path(source)
    if not folder.is_dir():
        return SourceRecord(source, None)
    digest = hashlib.sha256()
    for file in sorted(one for one in folder.iterdir() if one.name == CONFIG or one.suffix == SHARD):
        digest.update(f"{file.name} {sha256_file(file)}\n".encode())
    return SourceRecord(folder.resolve().name, digest.hexdigest())
