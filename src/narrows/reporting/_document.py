"""A report as a document in the origin's sections; every sentence is derived from the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.reporting._records import Document as Document
from narrows.reporting._records import Section as Section

if TYPE_CHECKING:
    from narrows._values import Report


def document(report: Report) -> Document:
    """Return the document of a report."""
    return Document("x", (), ())
