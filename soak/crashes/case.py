"""What every small run of a verb has: a start, the work, final names, and a store that keeps what was told."""

from __future__ import annotations

import hashlib
import importlib
import io
import sqlite3
import sys
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from soak.crashes.child import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from soak.crashes.child import Tell

TESTS = Path(__file__).parents[2] / "tests"
ABSENT = "not there"
TEMPORARY = (".tmp", ".new", ".old")
# A lock says nothing; SQLite removes its log when it is closed in order, and keeps it where the disk is full.
UNIMPORTANT = (".lock", "-wal", "-shm")


class Case(Protocol):
    """One verb on tiny sizes. `base` holds what all runs read; `home` is a run's own folder.

    Attributes:
        name: of the verb.
    """

    name: str

    def prepare(self, base: Path, home: Path) -> None:
        """Put into an empty home what a run finds there: what an earlier one wrote."""

    def ready(self, base: Path) -> None:
        """Load what every run would load again, in a process that forks them."""

    def work(self, base: Path, home: Path, tell: Tell) -> Answer:
        """Run; tell "kept X" after X is kept, never to be done again, and "wrote X" after a final name was given."""

    def state(self, home: Path) -> dict[str, str]:
        """Return final name -> what is under it, `ABSENT` for nothing; figures that a clock makes are left out."""

    def kept(self, home: Path) -> frozenset[str]:
        """Return the "kept X" lines of all that is in the store now."""

    def damage(self, home: Path) -> list[str]:
        """Return what is broken in the store, one line each; may change files in home."""


def called(arguments: Sequence[str]) -> Answer:
    """Return how a command line of narrows ends, run in this process."""
    from narrows.cli import command

    out, said = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(said):
        code = command.main(list(arguments), prog_name="narrows", standalone_mode=False)
    return Answer(int(code or 0), said.getvalue())


def tried(work: Callable[[], None]) -> Answer:
    """Return how the command would end where this work is done by a verb."""
    from narrows.cli._main import _message, exit_code

    try:
        work()
    except Exception as fault:  # noqa: BLE001 (as the last door of the command)
        return Answer(exit_code(fault), _message(fault))
    return Answer(0, "")


def telling(where: Any, name: str, tell: Tell, line: Callable[..., str]) -> None:
    """Let a function tell a line after each of its calls; the line is made of the call's arguments."""
    right = getattr(where, name)

    def told(*args: Any, **kwargs: Any) -> Any:
        found = right(*args, **kwargs)
        text = line(*args, **kwargs)
        if text:
            tell(text)
        return found

    setattr(where, name, told)


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Lend a store, of which there may be nothing yet."""
    address = f"{path.as_uri()}?mode=rw" if path.exists() else ":memory:"
    with closing(sqlite3.connect(address, uri=True)) as db:
        yield db


def rows(db: sqlite3.Connection, query: str) -> list[Any]:
    """Return what is in a table; nothing where it was not made yet."""
    try:
        return db.execute(query).fetchall()
    except sqlite3.OperationalError as fault:
        if "no such table" in str(fault):
            return []
        raise


def sqlite_damage(path: Path) -> list[str]:
    """Return what SQLite finds wrong with a store."""
    with opened(path) as db:
        return [text for (text,) in db.execute("PRAGMA integrity_check") if text != "ok"]


def files(home: Path) -> frozenset[str]:
    """Return the relative names of all files and empty folders that matter."""
    found = (one for one in home.rglob("*") if not one.is_dir() or not any(one.iterdir()))
    return frozenset(str(one.relative_to(home)) for one in found if not one.name.endswith(UNIMPORTANT))


def temporary(home: Path) -> list[str]:
    """Return what stands under temporary names."""
    return sorted(str(one.relative_to(home)) for one in home.rglob(".*") if one.name.endswith(TEMPORARY))


def folder_state(folder: Path) -> str:
    """Return a digest of a folder's names and bytes."""
    if not folder.exists():
        return ABSENT
    digest = hashlib.sha256()
    for one in sorted(folder.rglob("*")):
        digest.update(f"{one.relative_to(folder)} {'' if one.is_dir() else text_digest(one.read_bytes())}\n".encode())
    return digest.hexdigest()


def text_digest(data: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def tests_module(name: str) -> Any:
    """Return a module of the tests, which make tiny models and devices that are not there."""
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    return importlib.import_module(name)
