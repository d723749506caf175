"""The document as a value: sections of sentences and tables; Markdown, text and HTML read the same one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from narrows.reporting._table import Table


@dataclass(frozen=True, slots=True)
class Section:
    """One section.

    Attributes:
        paragraphs, points: sentences derived from the data; points are listed.
        tables: after them.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """The page that is made from a report."""

    title: str
    paragraphs: tuple[str, ...]
    sections: tuple[Section, ...]
