"""Where measured choices are kept: one SQLite file a user, written by any number of processes.

WAL with synchronous=FULL: what was committed is on the disk. Each row carries a digest of its
content, because SQLite does not notice a flipped bit in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from filelock import BaseFileLock, FileLock, Timeout

from narrows._files import decoded, make_folder, not_a_database, structural_damage, table_names, take_turn
from narrows._values._foreign import shown
from narrows.errors import FileError, ResourceError
from narrows.kernels.tuned._records import entry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from narrows.kernels.tuned._records import Entry, Silicon

SCHEMA = 1
BUSY_SECONDS = 30.0  # one write takes milliseconds: many processes wait for their turn
PAGE_BYTES = 4096  # of SQLite: the least that a change adds
_TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE choices (
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
        if not table_names(db):  # another process makes it at this moment
            return Contents()
        rows = db.execute("SELECT * FROM choices ORDER BY signature").fetchall()  # all: a flipped bit hides a row
    entries: list[Entry] = []
    faults: list[str] = []
    for row in rows:
        try:
            entry = _checked(*row)
        except (ValueError, TypeError) as fault:  # pydantic's and narrows' own; a flipped bit changes a type, too
            faults.append(f"row {shown(row[1])}: {shown(fault)}")
        else:
            if row[0] == _text(silicon):
                entries.append(entry)
    return Contents(tuple(entries), tuple(faults))


def write(path: Path, silicon: Silicon, entries: Iterable[Entry]) -> None:
    """Keep choices, in place of older ones of the same signatures.

    Raises:
        FileError, ResourceError: as `read`; or the disk is full.
    """
    rows = [_row(silicon, entry) for entry in entries]
    with _opened(path, writing=True) as db:
        db.executemany(_PUT, rows)


@contextmanager
def turn(path: Path, silicon: Silicon, *, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the turn of those who measure for a store and a silicon; others wait for the length of the block.

    Args:
        waiting: called about once a second while another process has it.

    Raises:
        ResourceError: its file cannot be made.
    """
    name = hashlib.sha256(_text(silicon).encode()).hexdigest()[:8]
    try:
        make_folder(path.parent)
        lock = take_turn(f"{path}.{name}.lock", waiting=waiting)
    except OSError as fault:
        raise _unopened(path, fault) from None
    try:
        yield
    finally:
        lock.release()


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
    except UnicodeDecodeError:  # of SQLite's own message, which quotes what is damaged
        raise _foreign(path, "malformed") from None
    except sqlite3.DatabaseError as fault:
        text = str(fault)
        if "not a database" in text or "malformed" in text or "no such" in text:
            raise _foreign(path, text) from None
        raise ResourceError(
            f"the tuned choices in {path} could not be {'written' if writing else 'read'} ({_cause(path, text)}). Free "
            "disk space or make the file and its folder writable."
        ) from None
    except OSError as fault:
        raise _unopened(path, fault) from None


def _cause(path: Path, text: str) -> str:
    """Return why SQLite could not write: it opens for reading what it cannot open for writing, and forgets why."""
    if "readonly" in text:
        try:
            os.close(os.open(path, os.O_RDWR))
            with tempfile.TemporaryFile(dir=path.parent) as file:
                file.write(bytes(PAGE_BYTES))
        except OSError as fault:
            return fault.strerror or str(fault)
    return shown(text)


def _unopened(path: Path, fault: OSError) -> ResourceError:
    return ResourceError(
        f"the tuned choices in {path} could not be opened ({fault.strerror or fault}). Make its folder writable."
    )


def _turn(path: Path) -> BaseFileLock:
    """Return the lock of writers: SQLite does not wait where two processes create a file or change its journal."""
    make_folder(path.parent)
    return FileLock(f"{path}.lock", timeout=BUSY_SECONDS)


@contextmanager
def _connected(path: Path, *, writing: bool) -> Iterator[sqlite3.Connection]:
    why = not_a_database(path)
    if why:
        raise _foreign(path, why)
    # What a kill in the midst of making the file left is undone by whoever opens it next, which must be able to write.
    reading = "rw" if path.with_name(f"{path.name}-journal").exists() else "ro"
    address = f"{path.absolute().as_uri()}?mode={'rwc' if writing else reading}"
    with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as db:
        db.text_factory = decoded
        _check_own(table_names(db), path)
        if writing:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("BEGIN IMMEDIATE")
            if not table_names(db):
                for statement in _TABLES:
                    db.execute(statement)
                db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
        damage = structural_damage(db)
        if damage:
            raise _foreign(path, f"it is damaged: {damage}")
        if table_names(db):
            _check_schema(db, path)
        yield db
        if writing:
            db.execute("COMMIT")


def _check_own(tables: set[str], path: Path) -> None:
    """Refuse the database of another program before anything is written into it."""
    if tables and not {"meta", "choices"} <= tables:
        raise _foreign(path, f"it holds the tables {', '.join(sorted(tables)[:5])}")


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    rows = db.execute("SELECT name, value FROM meta").fetchall()
    name, found = rows[0] if len(rows) == 1 else (None, None)
    if name != "schema" or not (isinstance(found, str) and found.isascii() and found.isdigit()) or int(found) < SCHEMA:
        raise _foreign(path, "it has no schema number")
    if int(found) > SCHEMA:
        raise FileError(
            f"the tuned choices in {path} were made by a newer narrows (schema {found[:9]}, this one knows {SCHEMA}). "
            "Update narrows, or start over: narrows tune --clear."
        )


def _foreign(path: Path, why: str) -> FileError:
    return FileError(f"{path} is not a store of tuned choices ({shown(why)}). Start over: narrows tune --clear.")
