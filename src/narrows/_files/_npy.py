"""Arrays of plain numbers from .npy files. The header is read as text: nothing in it is evaluated.

The format: numpy.org/devdocs/reference/generated/numpy.lib.format.html.
"""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

MAGIC = b"\x93NUMPY"
LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}  # of the header's length, by version
LONGEST = 10_000  # bytes of a header, as numpy itself allows
_KEYS = ["descr", "fortran_order", "shape"]
_FIELD = re.compile(r"\s*'(\w+)'\s*:\s*('[^']*'|True|False|\([\d,\s]*\))\s*(?:,|$)")
_NUMBERS = re.compile(r"'[<>|=]?[fiubc]\d{1,2}'")


def read_array(file: Path) -> np.ndarray:
    """Return the array of a .npy file; it takes no more memory than its file.

    Raises:
        ValueError: it is no such file, is cut short, or holds anything else than numbers.
        OSError: it cannot be read.
    """
    import numpy as np

    with file.open("rb") as opened:
        text, start = _header(opened.read(len(MAGIC) + 6 + LONGEST))
        kind, is_by_columns, shape = _fields(text)
        dtype = np.dtype(kind)
        asked, held = math.prod(shape) * dtype.itemsize, os.fstat(opened.fileno()).st_size - start
        if asked != held:
            raise ValueError(f"its header tells of {asked} bytes, {held} are there")
        opened.seek(start)
        flat = np.fromfile(opened, dtype, count=math.prod(shape))
    return flat.reshape(shape, order="F" if is_by_columns else "C")


def _header(data: bytes) -> tuple[str, int]:
    """Return the header's text, and where the numbers begin."""
    version = data[len(MAGIC) : len(MAGIC) + 2]
    if not data.startswith(MAGIC) or version not in LENGTH_BYTES:
        raise ValueError("it does not begin as one")
    begin = len(MAGIC) + 2 + LENGTH_BYTES[version]
    length = int.from_bytes(data[len(MAGIC) + 2 : begin], "little")
    if length > min(LONGEST, len(data) - begin):
        raise ValueError(f"its header tells of {length} bytes of itself")
    return data[begin : begin + length].decode("latin-1"), begin + length


def _fields(text: str) -> tuple[str, bool, tuple[int, ...]]:
    """Return dtype, whether columns lie together, and shape."""
    inner = text.strip()
    found: list[tuple[str, str]] = []
    place, end = 1, len(inner) - 1
    while place < end and (match := _FIELD.match(inner, place, end)):
        found.append((match[1], match[2]))
        place = match.end()
    values = dict(found)
    is_whole = inner[:1] == "{" and inner[-1:] == "}" and not inner[place:end].strip()
    if not is_whole or sorted(name for name, _ in found) != _KEYS or not _NUMBERS.fullmatch(values["descr"]):
        raise ValueError("its header is none of plain numbers")
    if values["fortran_order"] not in {"True", "False"} or values["shape"][0] != "(":
        raise ValueError("its header is none of plain numbers")
    sizes = [one.strip() for one in values["shape"].strip("()").split(",")]
    shape = tuple(int(one) for one in sizes if one)
    return values["descr"].strip("'"), values["fortran_order"] == "True", shape
