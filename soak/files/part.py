"""Drawn changes, flipped bits, hostile names and the scan of the source: how each is counted."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from soak._figure import Figure
from soak.files.change import Odd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from soak.files.run import Case, Outcome, Run
    from soak.files.subject import Subject

PART = "files"
CASES, NAMES = 100_000, 10_000
NAMES_A_PAGE = 20
KEPT = Path("build/soak/files")
SHOWN = 5  # failures of a figure that are told


def figures(seed: int, scale: float, jobs: int) -> Iterator[Figure]:
    """Yield what the files part counts; scale 1.0 is the long run."""
    yield scanned()
    yield named(seed, scale)
    with opened(seed) as run:
        if run is None:
            yield _not_shown("mutated files", CASES)
            return
        drawn = []
        for name in run.subjects:
            drawn.append(mutated(run, name, scale, jobs))
            yield drawn[-1]
        yield summed(drawn)
        for subject in run.subjects.values():
            for file in subject.bits:
                yield flipped(run, subject, file, scale, jobs)


def subjects() -> list[Subject]:
    """Return every kind of file that is mutated."""
    from soak.files import inputs, models, records, stores

    return [
        *inputs.subjects(),
        *models.subjects(),
        *records.subjects(),
        *records.verbs(),
        *stores.subjects(),
    ]


@contextmanager
def opened(seed: int) -> Iterator[Run | None]:
    """Lend a run with whole examples, in memory where there is a file system for it; None where Linux is missing."""
    if not Path("/proc/self/clear_refs").exists():
        yield None
        return
    import torch
    from transformers.utils import logging

    from soak.files.run import Run

    before = torch.get_num_threads(), logging.get_verbosity()
    torch.set_num_threads(1)  # threads do not outlive a fork
    logging.set_verbosity(logging.CRITICAL)
    memory = Path("/dev/shm")  # noqa: S108 (a folder of its own is made in it)
    place = Path(tempfile.mkdtemp(prefix="narrows-soak-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield Run.of(subjects(), seed, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
        torch.set_num_threads(before[0])
        logging.set_verbosity(before[1])


def mutated(run: Run, name: str, scale: float, jobs: int) -> Figure:
    """Return the figure of one kind of file under drawn changes."""
    from soak.files.run import Case

    number = max(round(CASES * run.subjects[name].share * scale), 1)
    return _figure(run, f"mutated {name}", [Case(name, index) for index in range(number)], jobs)


def summed(drawn: Sequence[Figure]) -> Figure:
    """Return the figure of all kinds of files under drawn changes together."""
    failed = [one.name for one in drawn if one.status == "failed"]
    return Figure(
        part=PART,
        name="mutated files in all",
        asked="no kind of file with a fault",
        reached=f"{len(failed)} of {len(drawn)} kinds with faults",
        status="failed" if failed else "ok",
        count=sum(one.count for one in drawn),
    )


def flipped(run: Run, subject: Subject, file: str, scale: float, jobs: int) -> Figure:
    """Return the figure of single bits of one file, flipped: all of them in the long run, else a seeded sample."""
    from soak.files.run import Case

    bits = range(8 * len(subject.files[file]))
    number = min(round(len(bits) * scale), len(bits))
    chosen = sorted(Random(f"{run.seed}/{file}").sample(bits, max(number, 1)))  # noqa: S311 (no secret)
    return _figure(run, f"single bits of {file}", [Case(subject.name, bit, file) for bit in chosen], jobs)


def scanned() -> Figure:
    """Return the figure of places in the source that could run what a file holds."""
    from soak.files.scan import findings

    source = Path(__file__).parents[2] / "src" / "narrows"
    found = findings(source)
    return Figure(
        part=PART,
        name="deserialisers that run code, in src/narrows",
        asked="none",
        reached=f"{len(found)} found",
        status="failed" if found else "ok",
        count=len(list(source.rglob("*.py"))),
        details=tuple(map(str, found[:SHOWN])),
    )


def named(seed: int, scale: float) -> Figure:
    """Return the figure of hostile names in pages, sheets and lines."""
    from soak.files.names import complaints, drawn

    number = max(round(NAMES * scale), NAMES_A_PAGE)
    found = []
    for first in range(0, number, NAMES_A_PAGE):
        names = [drawn(seed, index) for index in range(first, first + NAMES_A_PAGE)]
        found += [f"names {first}..{first + NAMES_A_PAGE - 1} of seed {seed}: {one}" for one in complaints(names)]
    return Figure(
        part=PART,
        name="hostile names in pages, sheets and lines",
        asked="no markup, formula or control character of theirs",
        reached=f"{len(found)} found",
        status="failed" if found else "ok",
        count=number,
        details=tuple(found[:SHOWN]),
    )


def _figure(run: Run, name: str, cases: Sequence[Case], jobs: int) -> Figure:
    counts: Counter[str] = Counter()
    faults: list[Outcome] = []
    for outcome in run.outcomes(cases, jobs):
        counts[outcome.status] += 1
        if outcome.status == "fault":
            faults.append(outcome)
            keep(run, outcome)
    told = ((counts["refused"], "refused"), (counts["same"], "read as before"), (counts["other"], "read as written"))
    return Figure(
        part=PART,
        name=name,
        asked="0 crash, hang, read outside, run code, take memory, or pass unnoticed",
        reached=", ".join([*(f"{count:,} {word}" for count, word in told if count), f"{len(faults)} faults"]),
        status="failed" if faults else "ok",
        count=len(cases),
        details=tuple(f"{one.said[:200]}: {one.text[:300]} [{command(run, one.case)}]" for one in faults[:SHOWN]),
    )


def command(run: Run, case: Case) -> str:
    """Return the command that repeats one case."""
    file = f" --file {case.file}" if case.file else ""
    return f"python -m soak.files.repeat {case.subject} {case.index} --seed {run.seed}{file}"


def keep(run: Run, outcome: Outcome) -> None:
    """Keep the changed files of a failing case, and how to repeat it."""
    case, change = outcome.case, run.change(outcome.case)
    folder = KEPT / "-".join([case.subject, *filter(None, [case.file]), str(run.seed), str(case.index)])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in change.files.items():
        if isinstance(content, bytes):
            (folder / name.replace("/", "-")).write_bytes(content)
    odd = [f"{name}: {one}" for name, one in change.files.items() if one is None or isinstance(one, Odd)]
    lines = [outcome.said, outcome.text, command(run, case), *odd]
    (folder / "how.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _not_shown(name: str, count: int) -> Figure:
    missing = "this system has no /proc/self/clear_refs: Linux is needed"
    return Figure(part=PART, name=name, asked=f"{count:,} cases", reached=missing, status="not shown")
