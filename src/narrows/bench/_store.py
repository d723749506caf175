"""Where measurements are kept: one SQLite file that a kill, a crash or a full disk cannot spoil.

WAL with synchronous=FULL: what was committed is on the disk. Facts (weights, errors, checks,
ceilings) and samples are keyed by content, so the same measurement is found again by any run.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout

from narrows.errors import FileError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, kind TEXT NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples (
    key TEXT NOT NULL, round INTEGER NOT NULL, ns REAL NOT NULL CHECK (ns > 0), calls INTEGER NOT NULL,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    PRIMARY KEY (key, round)
) WITHOUT ROWID;
"""


class Store:
    """An open store; a context manager. One process writes at a time.

    Raises (from every method):
        ResourceError: disk full, not writable, or in use by another run.
        FileError: not a store, or one of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise FileError(f"store {path} is a folder. Give --store a file in it, e.g. {path / 'store.sqlite'}.")
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(f"{path}.lock")
        self._take_lock()
        try:
            self._db = self._open()
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
        return None if row is None else json.loads(row[0])

    def put_fact(self, key: str, kind: str, value: object) -> None:
        """Keep a value under a key, in place of an older one."""
        text = json.dumps(value)
        with self._translated(), self._db:
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (key, kind, text))

    def add_sample(self, key: str, round_: int, ns: float, calls: int) -> None:
        """Keep one sample. The same (key, round) twice is an error: nothing is measured twice."""
        with self._translated(), self._db:
            values = (key, round_, ns, calls)
            self._db.execute("INSERT INTO samples (key, round, ns, calls) VALUES (?, ?, ?, ?)", values)

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
        with self._translated(), self._db:
            for table in ("facts", "samples"):
                self._db.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in keys])  # noqa: S608 (two literals)

    def _take_lock(self) -> None:
        with self._translated():
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise ResourceError(
                    f"store {self.path} is in use by another run. Wait until it ends, or give --store another file."
                ) from None

    def _open(self) -> sqlite3.Connection:
        with self._translated():
            db = sqlite3.connect(self.path, timeout=30)
            try:
                self._check_own(db)
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                db.executescript(_TABLES)
                db.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
                db.commit()
                found = int(db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()[0])
            except BaseException:
                db.close()
                raise
        if found > SCHEMA:
            db.close()
            raise FileError(
                f"store {self.path} was made by a newer narrows (schema {found}, this one knows {SCHEMA}). "
                "Update narrows, or give --store another file."
            )
        return db

    def _check_own(self, db: sqlite3.Connection) -> None:
        """Refuse the database of another program before anything is written into it."""
        found = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if found and not {"meta", "facts", "samples"} <= found:
            raise FileError(
                f"{self.path} is not a narrows store (it holds the tables {', '.join(sorted(found)[:5])}). "
                "Give --store another file."
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say what happened to the file, and what to do, in place of SQLite's or the system's words."""
        try:
            yield
        except sqlite3.DatabaseError as fault:
            text = str(fault)
            if "not a database" in text or "malformed" in text or "no such column" in text:
                raise FileError(
                    f"{self.path} is not a narrows store ({text}). Give --store another file, or delete this one."
                ) from None
            if isinstance(fault, sqlite3.IntegrityError):
                raise
            raise ResourceError(
                f"store {self.path} could not be written ({text}). Free disk space or make it writable, then run "
                "again: everything measured so far is kept."
            ) from None
        except OSError as fault:
            raise ResourceError(
                f"store {self.path} could not be opened ({fault.strerror or fault}). Make its folder writable, "
                "or give --store another file."
            ) from None
