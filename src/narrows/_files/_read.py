"""Reading tensors by name. Nothing is mapped: a mapped file that is cut short kills the process (SIGBUS)."""

from __future__ import annotations

import difflib
import math
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from narrows._files._locate import shards, single
from narrows._files._npy import read_array
from narrows._machine import first_line, fitting, is_shortage
from narrows._values._foreign import LONGEST, shown
from narrows.errors import FileError, InputError, ResourceError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    import torch

Layout = Literal["out-in", "in-out"]
MATRIX = 2  # dimensions
MOST_COMPARED = 5000  # names, each 0.1 ms
ADVICE = "Free some memory, or use a machine with more."
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
        ResourceError: it is larger than the free memory.
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
    known = [one for one in names[:MOST_COMPARED] if len(one) <= LONGEST]
    close = difflib.get_close_matches(name[:LONGEST], known, n=3, cutoff=0.0)
    nearest = f" Nearest: {', '.join(map(shown, close))}." if close else ""
    return f"{where} has no {kind} {shown(name)!r} among its {len(names)}.{nearest}"


def _read_safetensors(path: Path, tensor: str) -> torch.Tensor:
    sharded = shards(path)
    if sharded is not None and tensor not in sharded:
        raise FileError(missing_name("tensor", tensor, tuple(sharded), path))
    file = single(path) if sharded is None else sharded[tensor]
    with _opened(file) as opened:
        names = tuple(opened.keys())
        if tensor not in names:
            raise FileError(missing_name("tensor", tensor, names, file))
        what = f"tensor {shown(tensor)!r} of {file}"
        with fitting(_bytes(opened.get_slice(tensor)), "cpu", what=what, advice=ADVICE):
            found: torch.Tensor = opened.get_tensor(tensor)
    return found


def _bytes(described: Any) -> int:
    """Return the bytes of a tensor from its header; the names of dtypes say their bits ("BF16"), but for BOOL."""
    bits = re.search(r"\d+", described.get_dtype())
    return int(math.prod(described.get_shape())) * (int(bits[0]) if bits else 8) // 8


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a safetensors file, read with pread; what is wrong with it becomes a FileError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt", backend="pread") as opened:
            yield opened
    except SafetensorError as fault:
        raise FileError(
            f"{file} ({file.stat().st_size} bytes) is not a complete safetensors file: {shown(fault)}. "
            "It was cut short, or is something else: get it again."
        ) from None
    except OSError as fault:
        raise FileError(f"{file} cannot be read: {fault.strerror or fault}.") from None
    except MemoryError as fault:  # opening takes addresses for the whole file: ulimit -v may leave too few
        raise ResourceError(f"{file} did not fit the free memory ({first_line(fault)}). {ADVICE}") from None
    except RuntimeError as fault:  # of a dtype that torch knows by name only
        if is_shortage(fault):
            raise
        raise FileError(f"{file} holds numbers that this torch cannot read: {shown(fault)}.") from None


def _is_npy(path: str | PathLike[str]) -> bool:
    return Path(path).suffix.lower() == ".npy"


def _read_npy(path: Path, tensor: str) -> torch.Tensor:
    import torch

    file = single(path)
    if tensor:
        raise FileError(f"{file} holds one array without a name, not {shown(tensor)!r}: leave the name out.")
    try:
        with fitting(file.stat().st_size, "cpu", what=f"the array in {file}", advice=ADVICE):
            return torch.from_numpy(read_array(file))
    except (ValueError, TypeError) as fault:
        raise FileError(f"{file} is not a complete .npy file of numbers: {shown(fault)}.") from None
    except OSError as fault:
        raise FileError(f"{file} cannot be read: {fault.strerror or fault}.") from None
