"""Reading the files that verbs are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.errors import FileError

if TYPE_CHECKING:
    from pathlib import Path

    from narrows._values import Report


def read_report(path: Path) -> Report:
    """Return the report that a file holds.

    Raises:
        FileError: there is no such file, it cannot be read, or it is not a whole report.
    """
    from narrows._values import Report

    try:
        text = path.read_bytes()
    except OSError as fault:
        raise FileError(
            f"{path} cannot be read: {fault.strerror}. Give the file that `narrows measure -o FILE` wrote."
        ) from None
    return Report.from_json(text, source=str(path))
