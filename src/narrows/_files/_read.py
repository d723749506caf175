"""Reading tensors by name. Nothing is mapped: a mapped file that is cut short kills the process (SIGBUS)."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from narrows._files._locate import shards, single
from narrows.errors import FileError, InputError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    import torch

Layout = Literal["out-in", "in-out"]
MATRIX = 2  # dimensions
LAYOUTS: tuple[Layout, ...] = ("out-in", "in-out")


def read_tensor(path: str | PathLike[str], tensor: str, *, layout: Layout = "out-in") -> torch.Tensor:
    """Return one 2-D tensor of a file, on the CPU in its own dtype; values are not checked.

    Args:
        path: a .safetensors file, a .npy file, or a model's folder (model.safetensors, or an index
            with its shards).
        tensor: its name; empty for .npy, which holds one array.
        layout: "out-in", nn.Linear's (E, D); "in-out", GPT-2's Conv1D (D, E), which is transposed
            to (E, D).

    Raises:
        FileError: the file is missing, truncated, foreign or a pickle, or has no such tensor.
        ShapeError: the tensor is not 2-D.
        InputError: an unknown layout.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout={layout!r} is not known. Use 'out-in' (nn.Linear) or 'in-out' (GPT-2's Conv1D).")
    found = _read_npy(Path(path), tensor) if _is_npy(path) else _read_safetensors(Path(path), tensor)
    if found.ndim != MATRIX:
        raise ShapeError(f"tensor {tensor!r} of {path} has shape {tuple(found.shape)}; a 2-D tensor is needed.")
    return found.t().contiguous() if layout == "in-out" else found


def tensor_names(path: str | PathLike[str]) -> tuple[str, ...]:
    """Return the names of the tensors of a safetensors file or a model's folder, sorted ("" for .npy).

    Raises:
        FileError: as `read_tensor`.
    """
    return tuple(tensor_shapes(path))


def tensor_shapes(path: str | PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every tensor, by name; reads headers only.

    Raises:
        FileError: as `read_tensor`.
    """
    if _is_npy(path):
        return {"": tuple(_read_npy(Path(path), "").shape)}
    sharded = shards(Path(path))
    files = {single(Path(path))} if sharded is None else set(sharded.values())
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        with _opened(file) as opened:
            found |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return dict(sorted(found.items()))


def missing_name(kind: str, name: str, names: tuple[str, ...], where: object) -> str:
    """Return the sentence for a name that is not there, with the nearest ones."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
    nearest = f" Nearest: {', '.join(close)}." if close else ""
    return f"{where} has no {kind} {name!r} among its {len(names)}.{nearest}"


def _read_safetensors(path: Path, tensor: str) -> torch.Tensor:
    sharded = shards(path)
    if sharded is not None and tensor not in sharded:
        raise FileError(missing_name("tensor", tensor, tuple(sharded), path))
    file = single(path) if sharded is None else sharded[tensor]
    with _opened(file) as opened:
        names = tuple(opened.keys())
        if tensor not in names:
            raise FileError(missing_name("tensor", tensor, names, file))
        found: torch.Tensor = opened.get_tensor(tensor)
    return found


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a safetensors file, read with pread; what is wrong with it becomes a FileError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt", backend="pread") as opened:
            yield opened
    except SafetensorError as fault:
        raise FileError(
            f"{file} ({file.stat().st_size} bytes) is not a complete safetensors file: {fault}. "
            "It was cut short, or is something else: get it again."
        ) from None
    except OSError as fault:
        raise FileError(f"{file} cannot be read: {fault.strerror or fault}.") from None


def _is_npy(path: str | PathLike[str]) -> bool:
    return Path(path).suffix.lower() == ".npy"


def _read_npy(path: Path, tensor: str) -> torch.Tensor:
    import numpy as np
    import torch

    file = single(path)
    if tensor:
        raise FileError(f"{file} holds one array without a name, not {tensor!r}: leave the name out.")
    try:
        return torch.from_numpy(np.load(file, allow_pickle=False))
    except (ValueError, TypeError, EOFError) as fault:
        raise FileError(f"{file} is not a complete .npy file of numbers: {fault}") from None
    except OSError as fault:
        raise FileError(f"{file} cannot be read: {fault.strerror or fault}.") from None
