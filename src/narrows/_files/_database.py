"""SQLite files: whether a path leads to one at all, and whether what holds its rows together is whole."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

SMALLEST_PAGE = 512  # bytes: SQLite takes anything shorter for a database without content


def not_a_database(path: Path) -> str:
    """Return why SQLite must not open what is at a path; empty: it may, or there is nothing yet.

    It would wait for a pipe, and take a device or a few bytes for an empty database.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    if not stat.S_ISREG(found.st_mode):
        return "it is no regular file"
    return "file is not a database" if 0 < found.st_size < SMALLEST_PAGE else ""


def table_names(db: sqlite3.Connection) -> set[str]:
    """Return the names of a database's tables."""
    return {str(name) for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def structural_damage(db: sqlite3.Connection) -> str:
    """Return what is wrong with what holds the rows together, so that some may be missing; empty: nothing."""
    (told,) = db.execute("PRAGMA quick_check(1)").fetchone()
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    if told != "ok":
        return " ".join(str(told).split())[:200]
    return f"{pages} pages and no table" if pages > 1 and not table_names(db) else ""


def decoded(data: bytes) -> str:
    """Return a text of a database; a flipped bit may make it no UTF-8, which the digest of its row then shows."""
    return data.decode(errors="replace")
