"""Where measurements are kept: one SQLite file that a kill, a crash or a full disk cannot spoil.

WAL with synchronous=FULL: what was committed is on the disk. Facts (weights, errors, checks,
ceilings) and samples are keyed by content, so the same measurement is found again by any run. Each
row carries a digest: one that is not what was written is left out when the store is opened, named in
`damaged`, and measured again.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from narrows._files import decoded, make_folder, not_a_database, structural_damage, table_names, take_turn
from narrows._values._foreign import shown
from narrows.bench._store_rows import bring_up_to_date, leave_out_damaged, make_tables, put_row
from narrows.errors import FileError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Store:
    """An open store; a context manager. One run has it at a time: two that measure at once would disturb each other.

    Args:
        path: of the file; made where there is none.
        waiting: called about once a second while another run has it.

    Attributes:
        damaged: rows that were left out, one text each.

    Raises (from every method):
        ResourceError: the disk is full, broken or gone, or not writable.
        FileError: not a store, one of a newer version, or damaged beyond single rows.
    """

    damaged: tuple[str, ...]

    def __init__(self, path: Path, *, waiting: Callable[[], None] = lambda: None) -> None:
        self.path = path
        if path.is_dir():
            raise FileError(f"store {path} is a folder. Give --store a file in it, e.g. {path / 'store.sqlite'}.")
        with self._translated():
            make_folder(path.parent)
            self._lock = take_turn(f"{path}.lock", waiting=waiting)
        try:
            self._db = self._open()
            self._file = self._found()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let other runs in."""
        self._db.close()
        self._lock.release()

    def fact(self, key: str) -> Any:
        """Return the value kept under a key; None when there is none."""
        with self._translated():
            row = self._db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        try:
            return None if row is None else json.loads(row[0])
        except (ValueError, RecursionError):
            raise FileError(f"store {self.path}: the fact {key} is no JSON. Give --store another file.") from None

    def put_fact(self, key: str, kind: str, value: object) -> None:
        """Keep a value under a key, in place of an older one."""
        text = json.dumps(value)
        with self._writing():
            put_row(self._db, "facts", key, kind, text, replace=True)

    def add_sample(self, key: str, round_: int, ns: float, calls: int) -> None:
        """Keep one sample. The same (key, round) twice is an error: nothing is measured twice."""
        with self._writing():
            put_row(self._db, "samples", key, round_, float(ns), calls, now())

    def samples(self, key: str) -> list[tuple[int, float]]:
        """Return (round, nanoseconds a call) of a row, in the order of rounds."""
        with self._translated():
            return self._db.execute("SELECT round, ns FROM samples WHERE key = ? ORDER BY round", (key,)).fetchall()

    def last_sample_time(self, keys: list[str]) -> str:
        """Return the ISO time (UTC) of the latest sample of these rows; empty when there is none."""
        marks = ",".join("?" * len(keys))
        with self._translated():
            row = self._db.execute(f"SELECT max(at) FROM samples WHERE key IN ({marks})", keys).fetchone()  # noqa: S608 (marks only)
        return row[0] or ""

    def forget(self, keys: list[str]) -> None:
        """Delete the facts and samples of these keys."""
        with self._writing():
            for table in ("facts", "samples"):
                self._db.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in keys])  # noqa: S608 (two literals)

    def _open(self) -> sqlite3.Connection:
        with self._translated():
            why = not_a_database(self.path)
            if why:
                raise self._foreign(why)
            db = sqlite3.connect(self.path, timeout=30)
            db.text_factory = decoded
            try:
                is_new = self._check_own(db)
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                with db:
                    db.execute("BEGIN IMMEDIATE")
                    if is_new:
                        make_tables(db)
                    bring_up_to_date(db, self.path)
                    self.damaged = leave_out_damaged(db, self.path)
            except BaseException:
                db.close()
                raise
        return db

    def _check_own(self, db: sqlite3.Connection) -> bool:
        """Return whether the file holds nothing yet; refuse another program's before anything is written into it."""
        found = table_names(db)
        if found and not {"meta", "facts", "samples"} <= found:
            raise self._foreign(f"it holds the tables {', '.join(sorted(found)[:5])}")
        damage = "" if found else structural_damage(db)
        if damage:
            raise self._foreign(damage)
        return not found

    def _foreign(self, why: str) -> FileError:
        return FileError(f"{self.path} is not a narrows store ({shown(why)}). Give --store another file.")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Commit what the block writes, into the file that the path still names."""
        with self._translated(), self._db:
            yield
        if self._found() != self._file:
            raise ResourceError(
                f"store {self.path} is gone: its file was deleted, moved or replaced while this run wrote into it, so "
                "what was measured is not kept. Put it back or give --store another file, then run again."
            )

    def _found(self) -> tuple[int, int] | None:
        """Return which file the path names now; None: there is none, or its disk is gone."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say what happened to the file, and what to do, in place of SQLite's or the system's words."""
        try:
            yield
        except UnicodeDecodeError:  # of SQLite's own message, which quotes what is damaged
            raise FileError(f"{self.path} is not a narrows store (malformed). Give --store another file.") from None
        except sqlite3.DatabaseError as fault:
            text = str(fault)
            if "not a database" in text or "malformed" in text or "no such column" in text:
                raise self._foreign(text) from None
            if isinstance(fault, sqlite3.IntegrityError):
                raise
            raise ResourceError(f"store {self.path} could not be written ({shown(text)}). {_advice(fault)}") from None
        except OSError as fault:
            raise ResourceError(
                f"store {self.path} could not be opened ({fault.strerror or fault}). Make its folder writable, "
                "or give --store another file."
            ) from None


def now() -> str:
    """Return the ISO time (UTC)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _advice(fault: sqlite3.DatabaseError) -> str:
    """Return what to do about a file that SQLite cannot use, by its name of the error."""
    name = getattr(fault, "sqlite_errorname", "")
    if name.startswith("SQLITE_IOERR"):  # also a quota, or a limit on the size of files
        return (
            "Free disk space or make it writable, then run again: everything measured so far is kept. Where the disk "
            "itself fails, give --store a file on another one."
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return "Make it and its folder writable, or give --store another file: everything measured so far is kept."
    return "Free disk space or make it writable, then run again: everything measured so far is kept."
