"""Changes of a JSON document that keep it one, or almost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from soak.files.change import OUTSIDE

if TYPE_CHECKING:
    from random import Random

DEPTH = 100_000
MARK = "@@here@@"
VALUES = {
    "2^62": str(1 << 62),
    "2^31": str(1 << 31),
    "2^64": str(1 << 64),
    "-1": "-1",
    "0": "0",
    "-0.0": "-0.0",
    "1.5": "1.5",
    "99": "99",
    "1e400": "1e400",
    "1e308": "1e308",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "a number of 5,000 digits": "9" * 5000,
    "null": "null",
    "true": "true",
    "an empty text": '""',
    "a text of 64 KiB": f'"{"x" * 65536}"',
    "the text 1": '"1"',
    "a NUL": '"\\u0000"',
    "half a surrogate pair": '"\\ud800"',
    "markup": '"<script>alert(1)</script>"',
    "an escape sequence": '"\\u001b[31m"',
    "an empty list": "[]",
    "an empty object": "{}",
    "a list of 200,000": f"[{'0,' * 199_999}0]",
    "a list of 100,000 lists": f"[{'[],' * 99_999}[]]",
    "a list of 100,000 objects": f"[{'{},' * 99_999}{{}}]",
    f"a list {DEPTH} deep": "[" * DEPTH + "]" * DEPTH,
    f"an object {DEPTH} deep": '{"a":' * DEPTH + "1" + "}" * DEPTH,
    "a path above": f'"../{OUTSIDE}/secret.safetensors"',
    "a path in the root": '"/etc/hostname"',
    "a path of Windows": '"C:\\\\secret"',
    "a device": '"/dev/zero"',
    "a folder": '"."',
}


def changed_json(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Return what was done, and the document with it done."""
    document = json.loads(data)
    owner, key = rng.choice(list(_places(document)))
    where = f"{key!r}"
    if isinstance(owner, dict) and rng.random() < 0.4:
        return _changed_key(document, owner, key, rng)
    if rng.random() < 0.15:
        return f"{where} swapped with another value", _swapped(document, owner, key, rng)
    name = rng.choice(tuple(VALUES))
    owner[key] = MARK
    return f"{where} = {name}", _text(document, VALUES[name])


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key or index) of a document."""
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        owner = waiting.pop()
        keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
        found += [(owner, key) for key in keys]
        waiting += [owner[key] for key in keys if isinstance(owner[key], (dict, list))]
    return found


def _changed_key(document: Any, owner: dict[str, Any], key: str, rng: Random) -> tuple[str, bytes]:
    """Leave a key out, give it twice, rename it, or add one."""
    what = rng.choice(("left out", "twice", "twice, the second first", "renamed", "another added"))
    value = owner[key]
    if what == "left out":
        del owner[key]
        return f"{key!r} left out", _text(document, "")
    if what.startswith("twice"):
        other = VALUES[rng.choice(("2^62", "null", "an empty text", "an empty object", "NaN"))]
        both = (other, json.dumps(value)) if what == "twice" else (json.dumps(value), other)
        owner[key] = MARK
        return f"{key!r} {what}", _text(document, f"{both[0]}, {json.dumps(key)}: {both[1]}")
    if what == "renamed":
        del owner[key]
        owner[rng.choice((key + "_", key.upper(), "", "__class__", "../" + key))] = value
        return f"{key!r} renamed", _text(document, "")
    owner[rng.choice(("surprise", "auto_map", "trust_remote_code", "__init__", "a" * 65536))] = MARK
    return f"a key added beside {key!r}", _text(document, '{"AutoConfig": "evil.Evil"}')


def _swapped(document: Any, owner: Any, key: Any, rng: Random) -> bytes:
    other, second = rng.choice(list(_places(document)))
    first = json.dumps(owner[key])  # as texts: one may lie inside of the other
    owner[key], other[second] = json.loads(json.dumps(other[second])), json.loads(first)
    return _text(document, "")


def _text(document: Any, instead: str) -> bytes:
    """Return the document as text, with `instead` where the mark is."""
    return json.dumps(document).replace(f'"{MARK}"', instead).encode("utf-8", "surrogatepass")
