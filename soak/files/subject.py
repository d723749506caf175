"""A kind of file that narrows reads: an example that is whole, what reads it, and how it may be changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Literal, get_args

from soak.files.bytes import changed_bytes
from soak.files.change import Change, Odd, OddKind
from soak.files.json import changed_json
from soak.files.tensors import changed_npy, changed_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Family = Literal["bytes", "meaning", "place", "other", "stranger", "forged"]
STRANGERS = {
    "adapter_config.json": b'{"peft_type": "LORA"}',
    "configuration_evil.py": b"import os\nos.system('true')\n",
    "pytorch_model.bin": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
    "model.safetensors": b"",
    "model.safetensors.index.json": b'{"weight_map": {"a": "../outside/secret.safetensors"}}',
    "generation_config.json": b"[" * 100_000,
    "preprocessor_config.json": b"{",
    "sitecustomize.py": b"import os\nos.system('true')\n",
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One kind of file or folder.

    Attributes:
        name: of the kind.
        share: of all drawn cases.
        files: name -> content of a whole example.
        others: the same names with the content of another example.
        read: folder -> text that stands for all that was read; raises narrows' errors.
        is_sealed: digests cover the whole content: a change is refused, or means nothing.
        is_folder: a stranger's folder is read, so nothing outside of it may be; else the user named the file, and a
            link leads where the user wants.
        changed: names of the files that are changed; empty: all.
        forge: (files, draw) -> a change by somebody who makes the digests anew; None: there are none.
        bits: files of the exhaustive run, in which every bit is flipped by itself -> parts of them in which none may
            be read as before.
    """

    name: str
    share: float
    files: Mapping[str, bytes]
    others: Mapping[str, bytes]
    read: Callable[[Path], str]
    is_sealed: bool
    is_folder: bool = False
    changed: tuple[str, ...] = ()
    forge: Callable[[Mapping[str, bytes], Random], Change] | None = None
    bits: Mapping[str, tuple[range, ...]] = field(default_factory=dict)

    @property
    def is_one(self) -> bool:
        """The user names one file: another whole one in its place, or behind a link, is what the user wants."""
        return not self.is_folder

    def drawn(self, seed: int, index: int) -> Change:
        """Return the change of one case; the same for the same seed and index."""
        rng = Random(f"{seed}/{self.name}/{index}")  # noqa: S311 (no secret)
        family = _family(rng)
        if family == "forged" and self.forge is not None:
            return self.forge(self.files, rng)
        name = rng.choice(self.changed or tuple(self.files))
        if family == "place":
            return self._moved(name, rng)
        if family == "other":
            return self._exchanged(name, rng)
        if family == "stranger" and self.is_folder:
            return self._added(rng)
        data = self.files[name]
        said, data = _meant(name, data, rng) if family == "meaning" else changed_bytes(data, rng)
        return Change(f"{name}: {said}", {name: data}, may_differ=not self.is_sealed)

    def flipped(self, name: str, bit: int) -> Change:
        """Return the change of one bit of a file."""
        data = bytearray(self.files[name])
        data[bit // 8] ^= 1 << bit % 8
        return Change(f"{name}: bit {bit % 8} of byte {bit // 8} flipped", {name: bytes(data)})

    def size(self, change: Change) -> int:
        """Return the bytes of all files as they are after a change."""
        files: dict[str, bytes | Odd | None] = {**self.files, **change.files}
        return sum(len(one) for one in files.values() if isinstance(one, bytes))

    def _moved(self, name: str, rng: Random) -> Change:
        """Put something odd in a file's place, or nothing."""
        kind: OddKind | None = rng.choice((*get_args(OddKind), None))
        if kind is None:
            return Change(f"{name}: gone", {name: None}, may_differ=not self.is_sealed)
        is_followed = kind == "link" and self.is_one
        may_differ = is_followed or (kind == "hard link" and (not self.is_sealed or self.is_one))
        return Change(f"{name}: a {kind}", {name: Odd(kind)}, may_differ, is_followed)

    def _exchanged(self, name: str, rng: Random) -> Change:
        """Give a file the content of another one: of this example, or of the other of the same name."""
        source = rng.choice((self.files, self.others))
        other = name if source is self.others else rng.choice(tuple(self.files))
        data = source[other]
        said = "the other example's" if source is self.others else f"that of {other}"
        both = rng.random() < 0.5 and source is self.files
        files = {name: data, other: self.files[name]} if both else {name: data}
        is_whole = source is self.others and self.is_one
        return Change(f"{name}: content is {said}", files, may_differ=is_whole or not self.is_sealed)

    def _added(self, rng: Random) -> Change:
        name = rng.choice([one for one in STRANGERS if one not in self.files])
        return Change(f"{name} added", {name: STRANGERS[name]}, may_differ=not self.is_sealed)


def _family(rng: Random) -> Family:
    families: tuple[Family, ...] = ("bytes", "meaning", "place", "other", "stranger", "forged")
    return rng.choices(families, weights=(45, 25, 6, 5, 4, 15))[0]


def _meant(name: str, data: bytes, rng: Random) -> tuple[str, bytes]:
    """Change what a format means, where it is known; else bytes."""
    if name.endswith(".json"):
        return changed_json(data, rng)
    if name.endswith(".jsonl"):
        return _changed_line(data, rng)
    if name.endswith(".safetensors"):
        return changed_tensors(data, rng)
    if name.endswith(".npy"):
        return changed_npy(data, rng)
    return changed_bytes(data, rng)


def _changed_line(data: bytes, rng: Random) -> tuple[str, bytes]:
    lines = data.splitlines()
    number = rng.randrange(len(lines))
    said, lines[number] = changed_json(lines[number], rng)
    return f"line {number + 1}: {said}", b"\n".join(lines)
