"""While transformers reads a compressed model: its files are checked, then empty modules put into their places."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from narrows.errors import FileError, InputError
from narrows.models._forms import FORMS, TRANSPOSED, is_conv1d
from narrows.models._joint import join_
from narrows.models._manifest import AGAIN, MANIFEST, LayerRecord, Manifest, verified

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

READ = "_is_hf_initialized"  # transformers sets it on tensors that it read; all others it fills with random numbers
_STAND_INS = ("weight", "bias")


def verified_files(home: str, checkpoint_files: Sequence[str] | None) -> Manifest:
    """Return the manifest beside the files that transformers is about to read, all checked.

    Args:
        home: what `from_pretrained` was given: a folder, or a name on a hub.
        checkpoint_files: as transformers resolved them.

    Raises:
        FileError: something is missing, changed, or lies elsewhere.
    """
    if not checkpoint_files:
        raise FileError("a compressed model is read from a folder, not from a state dict: its manifest lies there.")
    folder = _one_folder(home, [Path(file) for file in checkpoint_files])
    if not (folder / MANIFEST).exists():
        raise FileError(
            f"{folder} has no {MANIFEST}: it is not a whole folder of a model that narrows saved. Get all its files "
            "(from a hub: huggingface_hub.snapshot_download), then load that folder."
        )
    manifest = verified(folder)
    chosen, listed = {Path(file) for file in checkpoint_files}, {folder / one.file for one in manifest.tensors.values()}
    if chosen != listed:
        odd = min(str(one) for one in chosen ^ listed)
        raise FileError(
            f"transformers would read other files than those of {folder / MANIFEST}, such as {odd}. {AGAIN}"
        )
    return manifest


def _one_folder(home: str, files: Sequence[Path]) -> Path:
    """Return the folder of all files, which is the given one or lies below it."""
    folder = files[0].parent
    for file in files:
        is_below = not Path(home).is_dir() or (
            file.is_relative_to(home) and ".." not in file.parts[len(Path(home).parts) :]
        )
        if file.parent != folder or not is_below:
            raise FileError(
                f"transformers would read {file}, which is not in the folder {home} with the others. {AGAIN}"
            )
    return folder


def names_in(model: nn.Module, manifest: Manifest) -> dict[str, str]:
    """Return saved name -> name in this model.

    A model of another class may be the saved one's base, or have it as its base, and may lack some
    of its parts; transformers reports tensors that it then does not read.
    """
    there = {name for name, _ in model.named_modules()}
    names, prefix = list(manifest.layers), f"{getattr(model, 'base_model_prefix', '')}."
    ways = [{name: name for name in names}]
    if type(model).__name__ != manifest.architecture:
        ways.append({name: name.removeprefix(prefix) for name in names if name.startswith(prefix)})
        ways.append({name: prefix + name for name in names})
    found = max(
        ({saved: name for saved, name in way.items() if _is_in(there, name, manifest.layers[saved])} for way in ways),
        key=len,
    )
    missing = next((name for name in names if name not in found), None)
    if missing is not None and (len(ways) == 1 or not found):
        raise FileError(f"{type(model).__name__} has no layer {missing!r}, which {MANIFEST} lists: load it as saved.")
    return found


def _is_in(there: set[str], name: str, record: LayerRecord) -> bool:
    """Return whether a model has the dense layers that a layer of a folder stands for."""
    return there.issuperset(record.stands_for(name))


def swap_empty(model: nn.Module, name: str, record: LayerRecord) -> nn.Module:
    """Replace a dense layer, or those that share a projection, by an empty one of its form, and return that.

    Raises:
        FileError: the layer is not linear, the rank does not fit its sizes, or layers cannot share a projection.
    """
    stack = record.stands_for(name)
    try:
        old = model.get_submodule(name) if stack == (name,) else join_(model, stack)
        layer = FORMS[record.form].empty(old, record.rank, record.details)
    except InputError as fault:
        raise FileError(f"layer {name} cannot be {record.form} with rank {record.rank}: {fault}") from None
    setattr(layer, TRANSPOSED, is_conv1d(old))
    model.set_submodule(name, layer)
    return layer


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a model, by name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def stand_in(layer: Any) -> None:
    """Give a layer, while it loads, the weight and bias that initializing code of its parents asks for (GPT-2, T5).

    They hold nothing and bear transformers' mark of what needs no random numbers.
    """
    for name in _STAND_INS:
        if not hasattr(layer, name):
            vars(layer)[name] = torch.empty(0)
            setattr(vars(layer)[name], READ, True)


def remove_stand_in(layer: nn.Module) -> None:
    """Take away what `stand_in` gave."""
    for name in _STAND_INS:
        vars(layer).pop(name, None)


def check_shapes(saved: str, layer: nn.Module, manifest: Manifest) -> None:
    """Raise FileError where form and rank do not fit the tensors that the shards hold for a layer."""
    for key, tensor in layer.state_dict().items():
        record = manifest.tensors.get(f"{saved}.{key}")  # None where transformers renames what it writes
        if record is not None and record.shape != tuple(tensor.shape):
            one = manifest.layers[saved]
            raise FileError(
                f"{saved}.{key} has shape {record.shape}, but {one.form} with rank {one.rank} needs "
                f"{tuple(tensor.shape)}. {AGAIN}"
            )


def expect_nothing_in(model: Any, weights: Iterable[str]) -> None:
    """Keep the zero-element tensors of replaced weights out of transformers' report of unexpected ones."""
    patterns = {rf"(^|\.){re.escape(weight)}$" for weight in weights}
    model._keys_to_ignore_on_load_unexpected = set(model._keys_to_ignore_on_load_unexpected or ()) | patterns  # noqa: SLF001
