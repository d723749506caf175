"""Changes of bytes that know nothing of what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    ByteChange = Callable[[bytes, Random], tuple[str, bytes]]

HEAD = 256  # bytes where most formats keep their numbers: hit more often than the rest
MOST = 8  # bits or bytes at a time


def flip(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Return the data with 1 to 8 bits flipped."""
    made, places = bytearray(data), [_place(data, rng) for _ in range(rng.choice((1, 1, 1, MOST)))]
    for place in places:
        made[place] ^= 1 << rng.randrange(8)
    return f"bits flipped in bytes {sorted(set(places))}", bytes(made)


def replace(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Return the data with 1 to 8 bytes in a row replaced: by random ones, zeros, 0xFF or digits."""
    place, size = _place(data, rng), rng.randint(1, MOST)
    new = rng.choice((rng.randbytes(size), b"\0" * size, b"\xff" * size, b"9" * size))
    return f"bytes {place}..{place + size - 1} = {new.hex()}", data[:place] + new + data[place + size :]


def cut(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Return a prefix of the data."""
    size = rng.choice((rng.randrange(len(data)), _place(data, rng), len(data) - 1))
    return f"cut to {size} bytes", data[:size]


def insert(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Return the data with some bytes put between two."""
    place, new = rng.choice((_place(data, rng), len(data))), rng.randbytes(rng.choice((1, 2, 8, 4096)))
    return f"{len(new)} bytes put in at {place}", data[:place] + new + data[place:]


def remove(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Return the data without some bytes in the middle."""
    place, size = _place(data, rng), rng.choice((1, 2, 8, 64))
    return f"bytes {place}..{place + size - 1} left out", data[:place] + data[place + size :]


def repeat(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Return the data with one part of it standing there twice."""
    place, size = _place(data, rng), rng.choice((1, 8, 64, 1024))
    return f"bytes {place}..{place + size - 1} twice", data[: place + size] + data[place:]


def whole(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Return the data as a whole made into something else."""
    made = {
        "empty": b"",
        "one byte": b"\0",
        "zeros": b"\0" * len(data),
        "random bytes": rng.randbytes(len(data)),
        "UTF-8 with a byte order mark": b"\xef\xbb\xbf" + data,
        "UTF-16": data.decode("latin-1").encode("utf-16"),
        "not UTF-8": data + b"\xff\xfe\x80",
        "twice": data + data,
        "lines ended as on Windows": data.replace(b"\n", b"\r\n"),
        "a pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04"
        b"true\x94\x85\x94R\x94.",
        "a zip": b"PK\x03\x04" + data,
        "a shell script": b"#!/bin/sh\ntrue\n",
        "JSON of another kind": b'{"schema": 1}',
        "a JSON list": b"[]",
        "a JSON number of 100,000 digits": b"9" * 100_000,
        "100,000 open brackets": b"[" * 100_000,
        "100,000 brackets": b"[" * 100_000 + b"]" * 100_000,
    }
    name = rng.choice(tuple(made))
    return name, made[name]


BYTE_CHANGES: tuple[ByteChange, ...] = (flip, flip, replace, cut, insert, remove, repeat, whole)


def changed_bytes(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Return what was done, and the data with it done; an empty file can only be made another one."""
    change = rng.choice(BYTE_CHANGES) if data else whole
    return change(data, rng)


def _place(data: bytes, rng: Random) -> int:
    return rng.randrange(min(len(data), HEAD)) if rng.random() < 0.4 else rng.randrange(len(data))
