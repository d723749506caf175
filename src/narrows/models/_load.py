"""A model from a folder on this machine, compressed or dense: checked first, without code or pickles from it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers

from narrows._files import tensor_shapes
from narrows._files._locate import PICKLES, check_file, shards, single
from narrows._files._plain import read_file
from narrows._machine import check_fits
from narrows._values import DTYPE_BYTES
from narrows._values._foreign import shown
from narrows._values._json import document
from narrows.errors import FileError
from narrows.models._manifest import AGAIN, MANIFEST, check_files, check_inside, check_no_adapter, verified
from narrows.models._plausible import CONFIG, check_plausible, reading
from narrows.models._quantizer import METHOD

if TYPE_CHECKING:
    from os import PathLike

    import torch
    from torch import nn


def load(
    folder: str | PathLike[str], *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """Return the model of a folder, in evaluation mode, as the class of transformers that its configuration names.

    Of a folder that `save` wrote, every file is compared with its manifest before a weight is read.
    No code from the folder is run, no pickle is read, nothing is fetched.

    Args:
        folder: a model's folder on this machine.
        device: where to; None: the CPU.
        dtype: of the weights; None: as saved.

    Raises:
        FileError: the folder is no model, or something in it is missing, changed, or outside of it.
        ResourceError: its weights are larger than the free memory.
    """
    path = Path(folder)
    is_saved = check_entries(path)
    architecture, is_compressed = _described(path)
    if is_saved:
        _check_saved(path, is_compressed=is_compressed)
    else:
        _check_foreign(path)
    check_plausible(path, architecture, _config(path))
    for place in ("cpu", str(device or "cpu")):
        check_fits(_weight_bytes(path, dtype), place, what=f"the model {path}", advice="Free some memory.")
    return _read(path, architecture, device, dtype)


def _read(path: Path, architecture: Any, device: torch.device | str | None, dtype: torch.dtype | None) -> nn.Module:
    with reading(path):
        model, report = architecture.from_pretrained(
            str(path.absolute()),
            dtype="auto" if dtype is None else dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        raise FileError(
            f"{path} lacks {len(report['missing_keys'])} tensors of {architecture.__name__}, such as "
            f"{min(report['missing_keys'])!r}; transformers would fill them with random numbers. {AGAIN}"
        )
    return model if device is None else model.to(device)  # type: ignore[no-any-return]


def _weight_bytes(path: Path, dtype: torch.dtype | None) -> int:
    """Return the bytes that a folder's weights take in a dtype; None: as saved."""
    with suppress(FileError):  # what is wrong with the files, those say who check them
        files = set((shards(path) or {"": single(path)}).values())
        stored = sum(file.stat().st_size for file in files)
        config = _config(path)
        saved = DTYPE_BYTES.get(str(config.get("dtype") or config.get("torch_dtype")))
        return stored if dtype is None or saved is None else stored * dtype.itemsize // saved
    return 0


def _described(path: Path) -> tuple[Any, bool]:
    """Return the model's class, and whether the configuration says that narrows compressed it."""
    config = _config(path)
    quantised = config.get("quantization_config")
    method = quantised.get("quant_method") if isinstance(quantised, dict) else None
    if config.get("transformers_weights") is not None:
        raise FileError(
            f"{path / CONFIG} names its weights (transformers_weights); narrows reads model.safetensors only."
        )
    if quantised is not None and method != METHOD:
        raise FileError(
            f"{path} holds a quantised model ({shown(method, 40)}): give the folder of the unquantised one."
        )
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    with reading(path):  # a class that needs a package which is not there is an error of its own
        found = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise FileError(
            f"{path / CONFIG} names the architecture {shown(name)!r}, which is no model of transformers "
            f"{transformers.__version__}. Code from a folder is never run; update transformers if the model is new."
        )
    return found, method == METHOD


def _config(path: Path) -> dict[str, Any]:
    if not (path / CONFIG).is_file():
        raise FileError(f"{path} is not a model's folder on this machine: it has no {CONFIG}.")
    try:
        config = document(read_file(path / CONFIG))
    except ValueError as fault:
        raise FileError(f"{path / CONFIG} is not a complete JSON document: {shown(fault)}.") from None
    if not isinstance(config, dict):
        raise FileError(f"{path / CONFIG} is JSON, but no model's configuration.")
    return config


def check_entries(path: Path) -> bool:
    """Return whether a folder has a manifest, its small files all as it says; links lead nowhere outside."""
    if path.is_dir():
        for one in path.iterdir():  # transformers opens what it finds, and would wait for a pipe
            check_inside(path, one.name)
    if not (path / MANIFEST).exists():
        return False
    check_files(path)
    return True


def _check_saved(path: Path, *, is_compressed: bool) -> None:
    """Raise FileError unless manifest and configuration agree on whether anything is compressed."""
    if is_compressed:
        return  # the plug-in checks everything while it loads
    if verified(path).layers:
        raise FileError(f"{path / CONFIG} does not say that narrows compressed this model, {MANIFEST} does. {AGAIN}")


def _check_foreign(path: Path) -> None:
    """Raise FileError where a dense model's shards are missing, cut short, pickles, or outside the folder."""
    check_no_adapter(path)
    files = [one for one in path.iterdir() if one.suffix == ".safetensors"]
    for one in path.iterdir():
        if not files and one.suffix in PICKLES:
            check_file(one)
    tensor_shapes(path)
