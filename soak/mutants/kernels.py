"""Wrong kernels: each planted in a copy of its source, for the checks that its right form passes."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak.mutants.source import Mutant

WRONG = Path(__file__).with_name("kernels.toml")
# Tests that plant mutants of their own look for the text that is changed here, and would fail whatever it does.
LEFT_OUT = ("mutant", "wrong_kernel")


@dataclass(frozen=True, slots=True)
class Planted:
    """A mutant and the test files that must catch it."""

    mutant: Mutant
    tests: tuple[str, ...]


def planted(root: Path) -> list[Planted]:
    """Return every wrong kernel.

    Raises:
        ValueError: a source no longer says, in one place, what a mutant changes: write the mutant anew.
    """
    return [
        Planted(_mutant(kernel["file"], _text(root, kernel["file"]), *change), tuple(kernel["tests"]))
        for kernel in _kernels()
        for change in kernel["mutants"]
    ]


def harmless(root: Path) -> list[Planted]:
    """Return every kernel with a comment more: the checks must pass them all."""
    return [Planted(commented(root, kernel["file"]), tuple(kernel["tests"])) for kernel in _kernels()]


def commented(root: Path, file: str) -> Mutant:
    """Return a mutant that does what its original does."""
    comment = "# a comment more"
    return Mutant(
        name=f"{file}: a comment more",
        file=file,
        kind="comment",
        line=1,
        lines=None,
        before="",
        after=comment,
        text=f"{_text(root, file)}{comment}\n",
    )


def _kernels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(WRONG.read_text())["kernel"]
    return found


def _text(root: Path, file: str) -> str:
    return (root / file).read_text(encoding="utf-8")


def _mutant(file: str, text: str, name: str, before: str, after: str) -> Mutant:
    if (times := text.count(before)) != 1:
        raise ValueError(f"{before!r} stands in {file} {times} times, and the mutant {name!r} changes one place.")
    return Mutant(
        name=f"{Path(file).stem}: {name}",
        file=file,
        kind="planted",
        line=text.count("\n", 0, text.find(before)) + 1,
        lines=None,
        before=" ".join(before.split()),
        after=" ".join(after.split()),
        text=text.replace(before, after),
    )
