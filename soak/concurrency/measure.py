"""Processes that measure into one store: each row is kept once, whole, and by whoever's turn it is."""

from __future__ import annotations

import json
import random
import sqlite3
import tempfile
import time
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soak.concurrency.children import stand_in, together
from soak.crashes.measure import Here

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from narrows._values import Experiment
    from soak.concurrency.children import Ended, Tell, Work

PROCESSES, READERS = 8, 2
LENGTHS, RANKS = ((8,), (16,), (8, 16)), ((2,), (2, 4), (4, 8))
FEWEST = 8  # rounds that every row of a finished experiment has
KILLED_WITHIN = 1.0  # seconds: a round takes two or so
OPENINGS, SAMPLES = 6, 5  # of a writer: how often it opens the store, and what it writes then
READ_SECONDS = 1.0
SAMPLE, DONE, READ = "sample ", "done ", "read "


def measured_together(seed: str, *, is_one_killed: bool = False) -> list[str]:
    """Return what went wrong where 8 processes measured overlapping experiments into one store, while 2 read it.

    Args:
        seed: of what each of them measures.
        is_one_killed: the first of them is killed at a random moment; the others must not notice.
    """
    draw = random.Random(seed)  # noqa: S311 (a draw, not a secret)
    with tempfile.TemporaryDirectory(prefix="soak-measure-") as folder:
        path = Path(folder) / "store.sqlite"
        asked = [(draw.choice(LENGTHS), draw.choice(RANKS)) for _ in range(PROCESSES)]
        works: list[Work] = [partial(_measure, path, lengths, ranks) for lengths, ranks in asked]
        moment, killed = (draw.uniform(0.0, KILLED_WITHIN), [0]) if is_one_killed else (None, [])
        ended = together([*works, *[partial(_read, path)] * READERS], kill_after=moment)
        return [*process_faults(ended, killed), *store_faults(path, ended), *_unfinished(ended, killed)]


def written_together(seed: str) -> list[str]:
    """Return what went wrong where 8 processes opened one store, wrote and closed it in quick turns, while 2 read."""
    with tempfile.TemporaryDirectory(prefix="soak-write-") as folder:
        path = Path(folder) / "store.sqlite"
        works: list[Work] = [partial(_write, path, f"{seed} {number}") for number in range(PROCESSES)]
        ended = together([*works, *[partial(_read, path)] * READERS])
        return [*process_faults(ended), *store_faults(path, ended)]


def _measure(path: Path, lengths: tuple[int, ...], ranks: tuple[int, ...], tell: Tell) -> None:
    from narrows.bench import _sweep, run_experiment
    from narrows.bench._store import Store

    stand_in(_sweep, Worker=Here)
    add = Store.add_sample

    def told(store: Store, key: str, round_: int, ns: float, calls: int) -> None:
        add(store, key, round_, ns, calls)
        tell(f"{SAMPLE}{key} {round_}")

    stand_in(Store, add_sample=told)
    report = run_experiment(_experiment(lengths, ranks), store=path, minutes=60.0)
    fewest = min(len(row.rounds) for row in report.rows)
    tell(f"{DONE}{fewest} {Counter(row.status for row in report.rows)['ok'] == len(report.rows)}")


def _experiment(lengths: tuple[int, ...], ranks: tuple[int, ...]) -> Experiment:
    from narrows import Experiment, WeightSource

    return Experiment(
        kind="bilinear",
        in_features=16,
        out_features=16,
        tokens=lengths,
        ranks=ranks,
        weights=(WeightSource("gaussian", "gaussian"),),
    )


def _write(path: Path, name: str, tell: Tell) -> None:
    from narrows.bench._store import Store

    for turn in range(OPENINGS):
        with Store(path) as store:
            store.put_fact(f"{name} {turn}", "check", {"by": name, "text": "x" * 500})
            for number in range(SAMPLES):
                store.add_sample(name, turn * SAMPLES + number, 1.0 + number, 1)
                tell(f"{SAMPLE}{name} {turn * SAMPLES + number}")


def _read(path: Path, tell: Tell) -> None:
    """Look at the store again and again, as another program would; tell what is not whole, or went away."""
    from narrows.bench._store_rows import TABLES, row_digest

    seen, end = 0, time.monotonic() + READ_SECONDS
    while time.monotonic() < end:
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
                tables = {table for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                rows = [row for table in TABLES if table in tables for row in db.execute(f"SELECT * FROM {table}")]  # noqa: S608
        except sqlite3.OperationalError as fault:
            if "unable to open" in str(fault):  # it is not there yet
                continue
            raise
        broken = [row for row in rows if row_digest(*row[:-1]) != row[-1]]
        if broken or len(rows) < seen:
            raise AssertionError(f"{len(broken)} rows are not whole, {len(rows)} after {seen}")
        seen = len(rows)
    tell(f"{READ}{seen}")


def process_faults(ended: Sequence[Ended], killed: Sequence[int] = ()) -> Iterator[str]:
    """Yield what is wrong with children that nobody killed."""
    for number, one in enumerate(ended):
        if number not in killed:
            yield from (f"process {number} {fault}" for fault in one.faults)


def store_faults(path: Path, ended: Sequence[Ended]) -> Iterator[str]:
    """Yield rows that are lost, were measured twice or are in no process's list, and damage."""
    told = Counter(line.removeprefix(SAMPLE) for one in ended for line in one.told if line.startswith(SAMPLE))
    with closing(sqlite3.connect(path)) as db:
        there = {f"{key} {round_}" for key, round_ in db.execute("SELECT key, round FROM samples")}
        checks = [*db.execute("PRAGMA integrity_check").fetchall(), *db.execute("PRAGMA foreign_key_check").fetchall()]
    yield from (f"lost: {one}" for one in sorted(told.keys() - there))
    untold = len(there - told.keys())
    if untold > sum(one.status < 0 for one in ended):  # a killed process may have kept one that it could not tell
        yield f"{untold} rows that no process says it kept"
    yield from (f"measured {count} times: {one}" for one, count in told.items() if count > 1)
    if checks != [("ok",)]:
        yield f"SQLite finds damage: {checks[:3]}"
    yield from damaged_rows(path)


def damaged_rows(path: Path) -> Iterator[str]:
    """Yield the rows that are not what was written."""
    from narrows.bench._store import Store

    with Store(path) as store:
        yield from store.damaged


def _unfinished(ended: Sequence[Ended], killed: Sequence[int]) -> Iterator[str]:
    """Yield processes whose report is not that of a finished experiment."""
    for number, one in enumerate(ended[:PROCESSES]):
        done = [line.split()[1:] for line in one.told if line.startswith(DONE)]
        if number not in killed and not one.faults and (not done or int(done[0][0]) < FEWEST or done[0][1] != "True"):
            yield f"process {number} has no finished report: {json.dumps(done)}"
