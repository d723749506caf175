"""Reading the files that verbs are given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from narrows.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from narrows._values import Report
    from narrows._values._check import Check

WROTE = "Give the file that `narrows measure -o FILE` wrote."


def read_report(path: Path) -> Report:
    """Return the report that a file holds.

    Raises:
        FileError: there is no such file, it cannot be read, or it is not a whole report.
    """
    from narrows._values import Report

    return Report.from_json(_text(path, WROTE), source=str(path))


def read_report_or_checks(paths: Sequence[Path]) -> Report | tuple[Check, ...]:
    """Return the report that a file holds, or the checks that one or several hold.

    Raises:
        FileError: as `read_report`.
        InputError: several files, and not each of them a check.
    """
    from narrows._values import Report
    from narrows._values._check import Check

    texts = {path: _text(path, f"{WROTE[:-1]}, or `narrows check -o FILE`.") for path in paths}
    checks = [path for path, text in texts.items() if _is_check(text)]
    if len(checks) == len(texts):
        return tuple(Check.from_json(text, source=str(path)) for path, text in texts.items())
    if len(texts) > 1:
        other = next(path for path in texts if path not in checks)
        raise InputError(
            f"{other} is no check of `narrows check`: several files are shown side by side only if all are. "
            "Reports are compared with `narrows compare`."
        )
    (path, text), *_ = texts.items()
    return Report.from_json(text, source=str(path))


def _text(path: Path, advice: str) -> bytes:
    from narrows._files import read_file

    return read_file(path, advice=advice)


def _is_check(text: bytes) -> bool:
    """Return whether JSON has what only a check has; what is no JSON is left to the reader of reports to refuse."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and "sides" in data and "judgements" in data
