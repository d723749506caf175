"""`narrows measure` on a weight of 16 x 16, with times that are made up, so that they are always the same."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from soak.crashes.case import ABSENT, called, opened, rows, sqlite_damage, telling, text_digest
from soak.crashes.child import KEPT, WROTE

if TYPE_CHECKING:
    from pathlib import Path

    from narrows import Report
    from narrows._values import Row
    from soak.crashes.child import Answer, Tell

STORE, REPORT = "store.sqlite", "report.json"
ASKED = ("measure", "--shape", "16x16", "--tokens", "8", "--rank", "2,4", "--minutes", "60")
ROUNDS = 8  # that an interval needs; a round that a kill broke off is made up for by one more
RENEWED = frozenset({"spent", "ceilings", "conditions"})  # facts of a run, not of what is measured
CEILINGS = {
    "dtype": "float32",
    "read_bytes_per_s": 1e10,
    "write_bytes_per_s": 1e10,
    "hot_read_bytes_per_s": 1e11,
    "hot_write_bytes_per_s": 1e11,
    "copy_bytes_per_s": 1e10,
    "flops_per_s": 1e11,
    "flops_shape": [1, 1, 1],
    "eager_launch_ns": 1.0,
    "graph_launch_ns": 0.0,
    "last_level_cache_bytes": 1 << 20,
}
PREVIOUS = "an earlier report\n"
A_REPORT = "a whole report"


class Here:
    """Stands for the measuring process: its code, in this process; only what a clock or a machine tells is made up."""

    def __init__(self) -> None:
        from narrows.bench._worker import _Server

        self._server = _Server()

    def ask(self, do: str, *, timeout: float, **request: Any) -> Any:
        """Return the answer to a request."""
        from narrows.bench._client import unpacked
        from narrows.bench._worker import _answer

        assert timeout > 0
        made_up = {"ceilings": CEILINGS, "share_of_float32": None, "conditions": {}, "peak": {"bytes": 4096}}
        if do in made_up:
            return made_up[do]
        if do == "sample":
            return {"ns": 1000.0 + zlib.crc32(json.dumps(request["point"]).encode()) % 1000, "calls": 1}
        return unpacked(json.loads(json.dumps(_answer(self._server, json.dumps({"do": do, **request})))))

    def close(self) -> None:
        """Do nothing: there is no process."""


class Measure:
    """A sweep of one length and two ranks, and its report."""

    name = "measure"

    def prepare(self, base: Path, home: Path) -> None:
        """Put an earlier report at the place of the new one."""
        del base
        (home / REPORT).write_text(PREVIOUS)

    def ready(self, base: Path) -> None:
        """Do nothing."""

    def work(self, base: Path, home: Path, tell: Tell) -> Answer:
        """Measure, and write the report."""
        del base
        from narrows import _files
        from narrows.bench import _store, _sweep

        vars(_sweep).update(Worker=Here)
        telling(_store.Store, "add_sample", tell, _sample_line)
        telling(_store.Store, "put_fact", tell, _fact_line)
        telling(_files, "write_text_atomic", tell, lambda path, _: f"{WROTE}{path.name}")
        return called([*ASKED, "--store", str(home / STORE), "-o", str(home / REPORT)])

    def state(self, home: Path) -> dict[str, str]:
        """Return what stands in the report."""
        path = home / REPORT
        return {REPORT: _told(path.read_text()) if path.exists() else ABSENT}

    def kept(self, home: Path) -> frozenset[str]:
        """Return the samples and facts in the store."""
        with opened(home / STORE) as db:
            samples = [_sample_line(None, *row) for row in rows(db, "SELECT key, round, ns, calls FROM samples")]
            facts = [_fact_line(None, *row) for row in rows(db, "SELECT key, kind, value FROM facts")]
        return frozenset(samples + facts) - {""}

    def damage(self, home: Path) -> list[str]:
        """Return what SQLite finds wrong."""
        return sqlite_damage(home / STORE)


class RealMeasure(Measure):
    """The same with the measuring process and its times, which are never the same."""

    def state(self, home: Path) -> dict[str, str]:
        """Return whether there is a report."""
        text = (home / REPORT).read_text()
        found = PREVIOUS if text == PREVIOUS else _report(text)
        if isinstance(found, str):
            return {REPORT: found}
        return {REPORT: A_REPORT if any(row.samples_ns for row in found.rows) else "a report without times"}


def _sample_line(_: object, key: str, round_: int, ns: float, calls: int) -> str:
    return f"{KEPT}sample {key} {round_} {float(ns)} {calls}"


def _fact_line(_: object, key: str, kind: str, value: object) -> str:
    del value  # of a check that was made again it is another one
    return "" if kind in RENEWED else f"{KEPT}{kind} {key}"


def _told(text: str) -> str:
    """Return what a report says, without what a clock or the number of kills says."""
    if text == PREVIOUS:
        return PREVIOUS
    found = _report(text)
    if isinstance(found, str):
        return found
    weights = tuple(replace(one, seconds=0.0) for one in found.weights)
    rows = tuple(replace(row, rounds=(), samples_ns=_once(row)) for row in found.rows)
    plain = replace(found, created="", weights=weights, rows=rows)
    return text_digest(plain.to_json().encode())


def _once(row: Row) -> tuple[float, ...]:
    """Return the different times of a row that has as many as it needs; all of another one."""
    enough = len(row.rounds) in {ROUNDS, ROUNDS + 1}
    return tuple(sorted(set(row.samples_ns))) if enough else row.samples_ns


def _report(text: str) -> Report | str:
    """Return the report that a text is, or what is wrong with it."""
    from narrows import Report
    from narrows.errors import FileError

    try:
        return Report.from_json(text)
    except FileError as fault:
        return str(fault)
