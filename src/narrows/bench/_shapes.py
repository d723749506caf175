"""Sizes of a weight in a file, from the file's header alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._files import read_tensor, tensor_shapes
from narrows.errors import ShapeError

if TYPE_CHECKING:
    from narrows._values import WeightSource


def _matrix(path: str, tensor: str, layout: str, what: str) -> tuple[int, int]:
    """Return (E, D) of a matrix in a file."""
    shape = tensor_shapes(path).get(tensor)
    if shape is None:
        shape = tuple(read_tensor(path, tensor).shape)  # raises, naming the nearest tensors
    if len(shape) != 2:
        raise ShapeError(f"{what} {path}:{tensor} has shape {tuple(shape)}; it must have 2 dimensions, (E, D).")
    if 0 in shape:
        raise ShapeError(f"{what} {path}:{tensor} has shape {tuple(shape)}; both dimensions must be at least 1.")
    return (shape[1], shape[0]) if layout == "in-out" else (shape[0], shape[1])


def file_shapes(source: WeightSource, *, heads: int, kv_heads: int) -> tuple[int, int, int]:
    """Return (D, E, inner size a head) of a weight in a file; the inner size is 0 for a single matrix.

    Raises:
        ShapeError: not a matrix, or operands whose rows a head differ.
        FileError: as `_files` says.
    """
    rows, D = _matrix(source.path, source.tensor, source.layout, "weight")
    if not source.right_path:
        return D, rows, 0
    right_rows, E = _matrix(source.right_path, source.right_tensor, source.layout, "weight-right")
    groups = kv_heads or heads
    if rows % heads or right_rows % groups or heads % groups or rows // heads != right_rows // groups:
        raise ShapeError(
            f"weight ({rows}, {D}) over {heads} heads and weight-right ({right_rows}, {E}) over {groups} heads do not "
            "have the same rows a head: check --heads and --kv-heads."
        )
    return D, E, rows // heads
