"""Real commands, started at the same moment as users start them, on one store and on one work folder."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from soak.concurrency.measure import damaged_rows
from soak.crashes.case import folder_state, temporary
from soak.crashes.models import NEW, OUT, WORK, asked

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 300.0
SIZES = ("--shape", "16x16", "--tokens", "8", "--rank", "2,4", "--minutes", "0.02")


def measures_started(number: int) -> list[str]:
    """Return what went wrong where so many `narrows measure` were started on one store."""
    from narrows import Report

    with tempfile.TemporaryDirectory(prefix="soak-starts-") as folder:
        place = Path(folder)
        store, reports = place / "store.sqlite", [place / f"{one}.json" for one in range(number)]
        lines = [("measure", *SIZES, "--store", str(store), "-o", str(report)) for report in reports]
        said, faults = _started(lines, place)
        if faults:
            return faults
        if not any("another run measures into" in one for one in said):
            faults.append("nobody said that it waits")
        found = [Report.from_json(one.read_bytes()) for one in reports]
        kept = max(sum(len(row.rounds) for row in one.rows) for one in found)
        with closing(sqlite3.connect(store)) as db:
            there = db.execute("SELECT count(*) FROM samples").fetchone()[0]
        if there != kept:
            faults.append(f"the store has {there} samples, the fullest report {kept}")
        return [*faults, *damaged_rows(store)]


def compressions_started(number: int, base: Path) -> list[str]:
    """Return what went wrong where so many `narrows compress` were started with one work folder and one place."""
    with tempfile.TemporaryDirectory(prefix="soak-starts-") as folder:
        home = Path(folder).resolve() / "home"
        home.mkdir()
        _, faults = _started([asked(base, home / OUT, home / WORK)] * number, home.parent)
        faults += [f"left over: {one}" for one in temporary(home)]
        if folder_state(home / OUT) != folder_state(base / NEW):
            faults.append("the folder is not the one that a process alone writes")
        return faults


def _started(lines: Sequence[Sequence[str]], place: Path) -> tuple[list[str], list[str]]:
    """Return what the commands said on standard error, and what went wrong."""
    added = {f"XDG_{one}_HOME": str(place / one.lower()) for one in ("CACHE", "DATA", "STATE")}
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment = {**kept, **added, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    logs = [place / f"{number}.log" for number in range(len(lines))]
    runs = []
    for line, log in zip(lines, logs, strict=True):
        with log.open("w", encoding="utf-8") as file:
            words = [sys.executable, "-m", "narrows", *line]
            runs.append(subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=file))
    codes = [_waited(run, time.monotonic() + LONGEST_SECONDS) for run in runs]
    said = [log.read_text(encoding="utf-8") for log in logs]
    faults = [f"exit {code}: {text.strip()[-300:]}" for code, text in zip(codes, said, strict=True) if code != 0]
    return said, faults


def _waited(run: subprocess.Popen[bytes], deadline: float) -> int | str:
    try:
        return run.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        run.kill()
        run.wait()
        return f"none within {LONGEST_SECONDS:.0f} s"
