"""Planted faults that the checks of this part must report; each returns what they say."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from soak.concurrency import children
from soak.concurrency.measure import SAMPLE, process_faults, store_faults
from soak.concurrency.tune import timed_together, tuned_together

if TYPE_CHECKING:
    from soak.concurrency.children import Tell


def tuned_without_turns(seed: str) -> list[str]:
    """Let everybody who tunes measure at once."""
    from narrows.kernels import tuned

    with mock.patch.object(tuned, "turn", return_value=nullcontext()):
        return tuned_together(seed)


def timed_without_turns(seed: str) -> list[str]:
    """Let everybody who times layers read the file, measure and write it at once."""
    from narrows.bench import _layers

    with mock.patch.object(_layers, "_turn", return_value=nullcontext()):
        return timed_together(seed)


def spoiled_store() -> list[str]:
    """Tell a sample that is lost, one that was kept twice, and spoil a row that is there."""
    from narrows.bench._store import Store

    with tempfile.TemporaryDirectory(prefix="soak-canary-") as folder:
        path = Path(folder) / "store.sqlite"
        with Store(path) as store:
            for number in range(3):
                store.add_sample("row", number, 1.0, 1)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE samples SET ns = 2.0 WHERE round = 1")
        told = tuple(f"{SAMPLE}{one}" for one in ("row 0", "row 1", "row 1", "row 9"))
        return list(store_faults(path, [children.Ended(0, told)]))


def hanging(seconds: float) -> list[str]:
    """Let one child raise an error, and another one wait for ever."""
    with mock.patch.object(children, "LONGEST_SECONDS", seconds):
        return list(process_faults(children.together([_raise, _hang])))


def spoiled_reader() -> list[str]:
    """Let a reader look at a store with a row that is not whole."""
    from narrows.bench._store import Store
    from soak.concurrency.measure import _read

    with tempfile.TemporaryDirectory(prefix="soak-canary-") as folder:
        path = Path(folder) / "store.sqlite"
        with Store(path) as store:
            store.put_fact("key", "check", {"status": "ok"})
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE facts SET value = '{'")
        return list(process_faults(children.together([lambda tell: _read(path, tell)])))


def _raise(_: Tell) -> None:
    raise ValueError("planted")


def _hang(_: Tell) -> None:
    time.sleep(3600.0)
