"""Lies in the headers of safetensors and .npy files."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from soak.files.json import changed_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

HUGE = 1 << 62
LENGTH = struct.Struct("<Q")
DTYPES = ("F64", "F32", "BF16", "F16", "I64", "BOOL", "U8", "F8_E4M3", "F4", "C64", "I128", "", "f32", 7)


def changed_tensors(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Return what was done to the header of a safetensors file, and the file with it done."""
    header, payload = parted(data)
    choice = rng.random()
    if choice < 0.2:
        return _length_lie(data, rng)
    if choice < 0.4:
        said, text = changed_json(json.dumps(header).encode(), rng)
        return f"header: {said}", LENGTH.pack(len(text)) + text + payload
    names = [name for name in header if name != "__metadata__"]
    said = rng.choice(_LIES)(header, rng.choice(names), rng)
    return f"header: {said}", joined(header, payload)


def parted(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the bytes after it."""
    (size,) = LENGTH.unpack(data[: LENGTH.size])
    return json.loads(data[LENGTH.size : LENGTH.size + size]), data[LENGTH.size + size :]


def joined(header: dict[str, Any], payload: bytes) -> bytes:
    """Return the file of a header and the bytes after it."""
    text = json.dumps(header).encode()
    return LENGTH.pack(len(text)) + text + payload


def _length_lie(data: bytes, rng: Random) -> tuple[str, bytes]:
    size = rng.choice(
        (0, 1, 7, len(data), len(data) - 8, 100_000_001, 1 << 31, HUGE, (1 << 64) - 1, rng.randrange(4096))
    )
    return f"header's length = {size}", LENGTH.pack(size) + data[LENGTH.size :]


def _offsets(header: dict[str, Any], name: str, rng: Random) -> str:
    start, end = header[name]["data_offsets"]
    lies: tuple[list[int], ...] = (
        [0, 0],
        [start, HUGE],
        [end, start],
        [start + 1, end + 1],
        [start, end + 4],
        [-4, end],
        [start],
        [0, HUGE],
    )
    header[name]["data_offsets"] = rng.choice(lies)
    return f"{name} at {header[name]['data_offsets']}"


def _shape(header: dict[str, Any], name: str, rng: Random) -> str:
    shape = header[name]["shape"]
    lies: tuple[Any, ...] = (
        [HUGE],
        [0, HUGE],
        [HUGE, 4],
        shape[::-1],
        [*shape, 1],
        [],
        [1 << 32, 1 << 32],
        [-1, *shape],
        [1] * 70,
        "x",
    )
    header[name]["shape"] = rng.choice(lies)
    return f"{name} of shape {header[name]['shape']}"


def _dtype(header: dict[str, Any], name: str, rng: Random) -> str:
    header[name]["dtype"] = rng.choice(DTYPES)
    return f"{name} of dtype {header[name]['dtype']!r}"


def _exchanged(header: dict[str, Any], name: str, rng: Random) -> str:
    """Give a tensor the bytes of another one, and that one its own."""
    other = rng.choice([one for one in header if one != "__metadata__"])
    mine, theirs = header[name]["data_offsets"], header[other]["data_offsets"]
    header[name]["data_offsets"], header[other]["data_offsets"] = theirs, mine
    return f"bytes of {name} and {other} exchanged"


def _renamed(header: dict[str, Any], name: str, rng: Random) -> str:
    new = rng.choice(("../" + name, name + "\0", "", "__metadata__", "x" * 65536, name.upper()))
    header[new] = header.pop(name)
    return f"{name} renamed to {new[:40]!r}"


def _metadata(header: dict[str, Any], name: str, rng: Random) -> str:
    header["__metadata__"] = rng.choice(({"format": 7}, {"format": "pickle"}, [], "x", {"a": {"b": "c"}}, None))
    return f"metadata {header['__metadata__']}, beside {name}"


_LIES: tuple[Callable[[dict[str, Any], str, Random], str], ...] = (
    _offsets,
    _offsets,
    _shape,
    _shape,
    _dtype,
    _exchanged,
    _renamed,
    _metadata,
)

NPY_SHAPES = (
    f"({HUGE},)",
    f"(0, {HUGE})",
    "(4294967296, 4294967296)",
    "(-1,)",
    "()",
    "(2,)",
    "[3, 3]",
    "'x'",
    "(True, 4)",
)
NPY_DEEP = ("(" * 5000 + ")" * 5000, "-" * 5000 + "1", "[" * 90 + "]" * 90, "~" * 9000 + "1")
NPY_CODE = ("__import__('os').system('true')", "(lambda: 4)()", "f'{4}'", "(2**62,)")
NPY_LENGTH = struct.Struct("<H")
NPY_DTYPES = ("'|O'", "'<f4'", "'>f8'", "'|S4'", "'<U9'", "'<M8[s]'", "[('a', '<f8')]", "'V9'", "'<c16'", "7", "'<f99'")


def changed_npy(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Return what was done to the header of a .npy file of float64, and the file with it done."""
    what = rng.choice(("shape", "shape", "dtype", "dtype", "order", "key", "version", "length", "deep", "code"))
    if what in {"version", "length"}:
        return _npy_prefix(data, what, rng)
    fields = {"descr": "'<f8'", "fortran_order": "False", "shape": "(3, 5)"}
    if what == "dtype":
        fields["descr"] = rng.choice(NPY_DTYPES)
    elif what == "order":
        fields["fortran_order"] = rng.choice(("True", "7", "None"))
    elif what == "key":
        fields["surprise"] = "1"
    else:
        fields["shape"] = rng.choice({"shape": NPY_SHAPES, "deep": NPY_DEEP, "code": NPY_CODE}[what])
    header = f"{{{', '.join(f'{name!r}: {value}' for name, value in fields.items())}}}\n".encode()
    (size,) = NPY_LENGTH.unpack(data[8:10])
    return f"header: {header[:80]!r}", data[:8] + NPY_LENGTH.pack(len(header)) + header + data[10 + size :]


def _npy_prefix(data: bytes, what: str, rng: Random) -> tuple[str, bytes]:
    if what == "version":
        version = bytes(rng.choice(((2, 0), (3, 0), (9, 9), (0, 0), (255, 255))))
        return f"version {tuple(version)}", data[:6] + version + data[8:]
    size = rng.choice((0, 1, 65535, rng.randrange(65536)))
    prefix = rng.choice((b"\x01\x00" + NPY_LENGTH.pack(size), b"\x02\x00" + struct.pack("<I", 0xFFFFFFF0)))
    return f"prefix {prefix.hex()}", data[:6] + prefix + data[6 + len(prefix) :]
