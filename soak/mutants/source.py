"""Mutants of source files: which there are, what each is called, and a seeded sample of them."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soak.mutants.edits import edits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from soak.mutants.edits import Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One file with one change.

    Attributes:
        name: of ten hex digits, made of the file, the function, both texts of the line, and which one of several such
            changes it is: it outlives changes elsewhere in the file.
        file: from the root of the tree.
        kind: of change.
        line: the first one that is changed.
        lines: that run the change, first and last; None: those of the module's import.
        before, after: the changed lines, without the spaces around them.
        text: of the whole changed file.
    """

    name: str
    file: str
    kind: str
    line: int
    lines: tuple[int, int] | None
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} [{self.name}] - {self.before} + {self.after}"


def mutants(root: Path, files: Iterable[str]) -> list[Mutant]:
    """Return every mutant of some files."""
    return [mutant for file in sorted(files) for mutant in _of_file(root, file)]


def sample(found: list[Mutant], number: int, seed: int) -> list[Mutant]:
    """Return a sample of this size, or all; a change of a source changes the part of the sample that lies there.

    Raises:
        SyntaxError: a mutant is no Python, which every test would notice: the fault is in `edits`.
    """
    chosen = sorted(found, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.name}".encode()).digest())[:number]
    for mutant in chosen:
        ast.parse(mutant.text, mutant.file)
    return chosen


def _of_file(root: Path, file: str) -> Iterator[Mutant]:
    source, times = (root / file).read_bytes(), Counter[tuple[str, ...]]()
    for edit in edits(source):
        yield _named(file, source, edit, times)


def _named(file: str, source: bytes, edit: Edit, times: Counter[tuple[str, ...]]) -> Mutant:
    """Return the mutant that an edit of a file makes; `times` counts equal ones."""
    first = source.rfind(b"\n", 0, edit.start) + 1
    last = source.find(b"\n", edit.stop)
    head, tail = source[first : edit.start], source[edit.stop : last]
    before = _one_line(source[first:last])
    after = _one_line(head + edit.text.encode() + tail)
    key = (file, edit.scope, before, after)
    times[key] += 1
    return Mutant(
        name=hashlib.sha256("\n".join((*key, str(times[key]))).encode()).hexdigest()[:10],
        file=file,
        kind=edit.kind,
        line=source.count(b"\n", 0, edit.start) + 1,
        lines=edit.lines,
        before=before,
        after=after,
        text=(source[: edit.start] + edit.text.encode() + source[edit.stop :]).decode(),
    )


def _one_line(piece: bytes) -> str:
    return " ".join(piece.decode().split())
