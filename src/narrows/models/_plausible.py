"""Whether a folder's configuration and the headers of its weights can be of one model, before anything is allocated."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from narrows._files import tensor_shapes
from narrows._machine import first_line, is_shortage
from narrows._values._foreign import shown
from narrows.errors import FileError, NarrowsError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONFIG = "config.json"
MOST_LAYERS = 1024  # that a configuration may name beyond what the shards have tensors for: some count unused ones
SPARE = 64 << 20  # bytes beside twice the weights: of tables that a model makes for itself
REASON = 500  # characters of what transformers says


def check_plausible(path: Path, architecture: Any, config: Mapping[str, Any]) -> None:
    """Pass a folder whose model has the shapes of its shards, and makes no tables that are larger than they are.

    The model is made once without memory for its weights.

    Args:
        architecture: the model's class.
        config: what config.json holds.

    Raises:
        FileError: the two do not fit, or transformers makes no model of the configuration.
    """
    found = tensor_shapes(path)
    _check_counts(path, config, max(MOST_LAYERS, len(found)))
    with reading(path):
        made = architecture.config_class.from_pretrained(str(path.absolute()), local_files_only=True)
        with torch.device("meta"):
            model = architecture(made)
    wanted, compressed = model.state_dict(), _compressed(config)
    for name, shape in found.items():
        if name.startswith(compressed):
            continue  # the plug-in compares these with what the manifest says of the layer
        if name in wanted and 0 not in shape and tuple(wanted[name].shape) != shape:
            raise FileError(
                f"{path}: {shown(name)} has shape {shape} in the shards, {CONFIG} asks for "
                f"{tuple(wanted[name].shape)}: they are not of one model. Get the folder again."
            )
    held = sum(buffer.nbytes for name, buffer in model.named_buffers() if name not in wanted)
    allowed = 2 * sum(one.stat().st_size for one in path.glob("*.safetensors")) + SPARE
    if held > allowed:
        raise FileError(
            f"{path / CONFIG} asks for tables of {held:,} bytes beside the weights, more than {allowed:,}. Get the "
            "folder again."
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever transformers raises over a folder into an error that names it."""
    try:
        yield
    except FileError as fault:  # of the plug-in, which knows names only
        raise FileError(_with_folder(path, shown(fault, 2 * REASON))) from fault
    except NarrowsError:
        raise
    except Exception as fault:
        if is_shortage(fault):
            raise ResourceError(
                f"the model {path} did not fit the free memory ({first_line(fault)}). Free some memory."
            ) from fault
        reason = " ".join(str(fault)[: 2 * REASON].split())
        raise FileError(f"{path} could not be loaded by transformers: {shown(reason, REASON)}") from fault


def _with_folder(path: Path, text: str) -> str:
    return text if str(path) in text else f"{path}: {text}"


def _compressed(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the names of compressed layers' tensors begin with."""
    layers = (config.get("quantization_config") or {}).get("layers")
    return tuple(f"{name}." for name in layers) if isinstance(layers, dict) else ()


def _check_counts(path: Path, config: Any, most: int) -> None:
    """Raise FileError for a number of layers that the shards cannot have tensors for."""
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(str(key), one) for key, one in value.items()]
        elif isinstance(value, list):
            waiting += [(name, one) for one in value]
        elif "layer" in name.lower() and isinstance(value, (int, float)) and value > most:
            raise FileError(
                f"{path / CONFIG} asks for {shown(name, 40)}={shown(value, 40)}, more than {most}, which its shards "
                "could have tensors for. Get the folder again."
            )
