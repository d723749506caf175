"""Files that say what people think of texts: word pairs with scores, lines with labels."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from narrows._files import read_text
from narrows.errors import FileError

if TYPE_CHECKING:
    from pathlib import Path

FEWEST_PAIRS = 10
FEWEST_LINES = 10


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of words and how alike people find them."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts and the class of each."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]


def read_pairs(path: Path) -> Pairs:
    """Return the word pairs of a file of lines "word1 TAB word2 TAB score".

    Lines that begin with #, and a first line whose third field is no number (a heading), are passed over.

    Raises:
        FileError: it cannot be read, another line is not such a line, or there are fewer than 10.
    """
    rows = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        fields = line.split("\t")
        is_heading = number == 1 and len(fields) > 2 and not _is_score(fields[2])
        if not line.strip() or line.startswith("#") or is_heading:
            continue
        if len(fields) < 3 or not _is_score(fields[2]):
            raise FileError(f"{path} line {number}: {line[:80]!r} is not word1, word2 and a score, with tabs between.")
        rows.append((fields[0], fields[1], float(fields[2])))
    if len(rows) < FEWEST_PAIRS:
        raise FileError(f"{path} holds {len(rows)} word pairs; a correlation needs at least {FEWEST_PAIRS}.")
    first, second, scores = zip(*rows, strict=True)
    return Pairs(first, second, scores)


def read_labelled(path: Path) -> Labelled:
    """Return the lines of a JSONL file, each an object with a "text" and a "label".

    Raises:
        FileError: it cannot be read, a line is not such an object, or there are too few lines or one class only.
    """
    rows = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            rows.append((str(found["text"]), str(found["label"])))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise FileError(f'{path} line {number}: {line[:80]!r} is not an object with "text" and "label".') from None
    classes = {label for _, label in rows}
    if len(rows) < FEWEST_LINES or len(classes) < 2:
        raise FileError(
            f"{path} holds {len(rows)} lines of {len(classes)} classes: give at least {FEWEST_LINES} of 2 classes."
        )
    texts, labels = zip(*rows, strict=True)
    return Labelled(texts, labels)


def _is_score(field: str) -> bool:
    try:
        return math.isfinite(float(field))
    except ValueError:
        return False


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError as fault:
        raise FileError(f"{path} is not UTF-8 text ({fault.reason} at byte {fault.start}).") from None
