"""Where measured choices are kept: one SQLite file a user, written by any number of processes.

WAL with synchronous=FULL: what was committed is on the disk. Each row carries a digest of its
content, because SQLite does not notice a flipped bit in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from filelock import BaseFileLock, FileLock, Timeout

from narrows.errors import FileError, ResourceError
from narrows.kernels.tuned._records import entry_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from narrows.kernels.tuned._records import Entry, Silicon

SCHEMA = 1
BUSY_SECONDS = 30.0  # one write takes milliseconds: many processes wait for their turn
_TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS choices (
        silicon TEXT NOT NULL, signature TEXT NOT NULL, entry TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (silicon, signature)
    ) WITHOUT ROWID""",
)
_PUT = "INSERT OR REPLACE INTO choices VALUES (?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Contents:
    """What was read.

    Attributes:
        entries: that are whole.
        faults: one text a row that is not.
    """

    entries: tuple[Entry, ...] = ()
    faults: tuple[str, ...] = ()


def default_path() -> Path:
    """Return the file where the choices of this user are kept."""
    from platformdirs import user_data_path

    return user_data_path("narrows") / "tuned.sqlite"


def is_used() -> bool:
    """Say whether calls read the user's choices: NARROWS_TUNED=off leaves only those that are shipped."""
    return os.environ.get("NARROWS_TUNED", "") != "off"


def read(path: Path, silicon: Silicon) -> Contents:
    """Return the choices that a store holds for one silicon; no file: none.

    Raises:
        FileError: not a store, or one of a newer version.
        ResourceError: it cannot be opened.
    """
    if not _exists(path):
        return Contents()
    with _opened(path, writing=False) as db:
        if not _tables(db):  # another process makes it at this moment
            return Contents()
        rows = db.execute("SELECT * FROM choices WHERE silicon = ? ORDER BY signature", (_text(silicon),)).fetchall()
    entries: list[Entry] = []
    faults: list[str] = []
    for row in rows:
        try:
            entries.append(_checked(*row))
        except (ValueError, TypeError) as fault:  # pydantic's and narrows' own; a flipped bit changes a type, too
            faults.append(f"row {row[1]}: {str(fault).splitlines()[0]}")
    return Contents(tuple(entries), tuple(faults))


def write(path: Path, silicon: Silicon, entries: Iterable[Entry]) -> None:
    """Keep choices, in place of older ones of the same signatures.

    Raises:
        FileError, ResourceError: as `read`; or the disk is full.
    """
    rows = [_row(silicon, entry) for entry in entries]
    with _opened(path, writing=True) as db:
        db.executemany(_PUT, rows)


def clear(path: Path) -> int:
    """Delete every choice, of every device; return how many there were. A broken store is deleted with its file.

    Raises:
        ResourceError: it cannot be written.
    """
    if not _exists(path):
        return 0
    try:
        with _opened(path, writing=True) as db:
            return db.execute("DELETE FROM choices").rowcount
    except FileError:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return 0


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as fault:
        raise ResourceError(f"{path} cannot be looked at: {fault.strerror}.") from fault


def _row(silicon: Silicon, entry: Entry) -> tuple[str, str, str, str]:
    parts = (_text(silicon), str(entry.signature(0)), json.dumps(asdict(entry)))
    return (*parts, _digest(*parts))


def _checked(silicon: str, signature: str, text: str, digest: str) -> Entry:
    """Return a row's entry.

    Raises:
        ValueError: the row is not what was written.
    """
    if _digest(silicon, signature, text) != digest:
        raise ValueError("its content does not match its digest")
    return entry_of(text)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _text(silicon: Silicon) -> str:
    return json.dumps(asdict(silicon))


@contextmanager
def _opened(path: Path, *, writing: bool) -> Iterator[sqlite3.Connection]:
    """Lend a checked connection; a writer's changes are one transaction, and writers take turns."""
    try:
        with _turn(path) if writing else nullcontext(), _connected(path, writing=writing) as db:
            yield db
    except Timeout:
        raise ResourceError(
            f"the tuned choices in {path} are being written by another process for over {BUSY_SECONDS:.0f} s. "
            "Wait until it ends, then run again."
        ) from None
    except sqlite3.DatabaseError as fault:
        text = str(fault)
        if "not a database" in text or "malformed" in text or "no such" in text:
            raise _foreign(path, text) from None
        raise ResourceError(
            f"the tuned choices in {path} could not be {'written' if writing else 'read'} ({text}). Free disk space "
            "or make the file and its folder writable."
        ) from None
    except OSError as fault:
        raise ResourceError(
            f"the tuned choices in {path} could not be opened ({fault.strerror or fault}). Make its folder writable."
        ) from None


def _turn(path: Path) -> BaseFileLock:
    """Return the lock of writers: SQLite does not wait where two processes create a file or change its journal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock", timeout=BUSY_SECONDS)


@contextmanager
def _connected(path: Path, *, writing: bool) -> Iterator[sqlite3.Connection]:
    address = f"{path.absolute().as_uri()}?mode={'rwc' if writing else 'ro'}"
    with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as db:
        _check_own(_tables(db), path)
        if writing:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("BEGIN IMMEDIATE")
            for statement in _TABLES:
                db.execute(statement)
            db.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
        if _tables(db):
            _check_schema(db, path)
        yield db
        if writing:
            db.execute("COMMIT")


def _tables(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _check_own(tables: set[str], path: Path) -> None:
    """Refuse the database of another program before anything is written into it."""
    if tables and not {"meta", "choices"} <= tables:
        raise _foreign(path, f"it holds the tables {', '.join(sorted(tables)[:5])}")


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    found = db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    if found is None or not str(found[0]).isdigit():
        raise _foreign(path, "it has no schema number")
    if int(found[0]) > SCHEMA:
        raise FileError(
            f"the tuned choices in {path} were made by a newer narrows (schema {found[0]}, this one knows {SCHEMA}). "
            "Update narrows, or start over: narrows tune --clear."
        )


def _foreign(path: Path, why: str) -> FileError:
    return FileError(f"{path} is not a store of tuned choices ({why}). Start over: narrows tune --clear.")
