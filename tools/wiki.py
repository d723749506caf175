"""Return the plain text of the Wikipedia articles in a MediaWiki XML dump."""

from __future__ import annotations

import bz2
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import mwparserfromhell

if TYPE_CHECKING:
    from collections.abc import Iterator

FEWEST_CHARACTERS = 2000  # shorter pages are lists of links


def articles(dump: bytes) -> Iterator[str]:
    """Yield the text of every article (no redirect, main namespace) of a bz2 dump, without markup."""
    root = ET.fromstring(bz2.decompress(dump))  # noqa: S314 (its hash is pinned)
    space = root.tag.partition("}")[0] + "}"
    for page in root.iter(f"{space}page"):
        markup = page.findtext(f"{space}revision/{space}text") or ""
        if page.findtext(f"{space}ns", "0") != "0" or markup.lower().startswith("#redirect"):
            continue
        text = mwparserfromhell.parse(markup).strip_code(normalize=True, collapse=True)
        if len(text) >= FEWEST_CHARACTERS:
            yield text
