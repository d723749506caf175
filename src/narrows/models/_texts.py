"""Texts: documents from files, and their division into parts that share none."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from narrows._files import read_text
from narrows.errors import FileError, InputError
from narrows.models._texts_windows import Windows as Windows
from narrows.models._texts_windows import windows as windows

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = (".txt", ".jsonl")
PASSAGE_CHARACTERS = 8192  # about 2000 tokens of English, 4 windows of 512
SHARES = (0.5, 0.15, 0.35)  # of the characters


@dataclass(frozen=True, slots=True)
class Parts:
    """Documents for three purposes; none is in two of them.

    Attributes:
        calibration: for the moments that factors are made from.
        selection: for choices between methods and ranks.
        check: for what is reported.
    """

    calibration: tuple[str, ...]
    selection: tuple[str, ...]
    check: tuple[str, ...]


def read_documents(source: Sequence[str] | str | PathLike[str]) -> tuple[str, ...]:
    """Return documents that hold more than white space, in order.

    Args:
        source: a list of documents; or the path of a .jsonl file (one JSON object a line, its "text" is a
            document), of a .txt file in UTF-8, or of a folder of such files, which are read by name. A .txt
            file usually holds a book or many articles, with nothing that says where one ends: it is cut
            at blank lines into passages of at least 8192 characters, each a document.

    Raises:
        FileError: a file is missing, not UTF-8, or a line of it is not such an object.
        InputError: there is no document.
    """
    if isinstance(source, (str, PathLike)):
        found = [text for path in _files(Path(source)) for text in _read(path)]
    else:
        found = list(source)
    documents = tuple(text for text in found if text.strip())
    if not documents:
        raise InputError(f"{source if isinstance(source, (str, PathLike)) else 'the list'} holds no document.")
    return documents


def split(documents: Sequence[str], *, seed: int, shares: tuple[float, float, float] = SHARES) -> Parts:
    """Return the documents divided into three parts with about these shares of the characters.

    In an order that the seed decides, each document goes to the part that lacks most.

    Args:
        shares: of calibration, selection and check; they need not add up to 1.

    Raises:
        InputError: fewer than 3 documents, or one text twice: two parts might hold it.
    """
    _check_different(documents)
    if len(documents) < len(shares):
        raise InputError(
            f"{len(documents)} documents cannot be divided into calibration, selection and check: give at least "
            f"{len(shares)}. (A .txt file is cut at blank lines into passages of {PASSAGE_CHARACTERS} characters.)"
        )
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)  # noqa: S311 (no secret)
    missing = [share / sum(shares) * sum(map(len, documents)) for share in shares]
    parts: tuple[list[int], ...] = ([], [], [])
    for left, i in zip(range(len(order), 0, -1), order, strict=True):
        empty = [p for p, part in enumerate(parts) if not part]
        open_parts = empty if left <= len(empty) else range(len(parts))
        chosen = max(open_parts, key=lambda p: missing[p])
        parts[chosen].append(i)
        missing[chosen] -= len(documents[i])
    return Parts(*(tuple(documents[i] for i in sorted(part)) for part in parts))


def _check_different(documents: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for i, text in enumerate(documents):
        j = first.setdefault(" ".join(text.split()), i)
        if j != i:
            raise InputError(
                f"documents {j} and {i} are the same text ({len(text)} characters, {text.strip()[:40]!r}...): "
                "calibration and check would not be disjoint. Remove one of them."
            )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if one.suffix.lower() in KINDS and one.is_file())
    if not found:
        raise InputError(f"the folder {path} holds no .txt or .jsonl file.")
    return found


def _read(path: Path) -> list[str]:
    if path.suffix.lower() not in KINDS:
        raise FileError(f"{path} is neither .txt nor .jsonl: give one of these, or a folder of them.")
    try:
        text = read_text(path)
    except UnicodeDecodeError as fault:
        raise FileError(f"{path} is not UTF-8 (byte {fault.start}): convert it.") from None
    return _passages(text) if path.suffix.lower() == ".txt" else _texts_of_lines(path, text)


def _texts_of_lines(path: Path, text: str) -> list[str]:
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            document = None
        if not isinstance(document, str):
            raise FileError(f'{path}, line {number}: {line[:60]!r} is not a JSON object with a "text".')
        found.append(document)
    return found


def _passages(text: str) -> list[str]:
    """Return the text cut at blank lines where at least 8192 characters have come together."""
    made: list[str] = []
    for paragraph in re.split(r"\n[ \t\r]*\n", text):
        if made and len(made[-1]) < PASSAGE_CHARACTERS:
            made[-1] += "\n\n" + paragraph
        else:
            made.append(paragraph)
    if len(made) > 1 and len(made[-1]) < PASSAGE_CHARACTERS:
        rest = made.pop()
        made[-1] += "\n\n" + rest
    return made
