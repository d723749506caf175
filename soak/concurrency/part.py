"""The sorts of rounds, the disks and the real starts: how each is counted."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soak._figure import Figure
from soak.concurrency import disks, measure, models, tune
from soak.concurrency.children import pool
from soak.concurrency.starts import compressions_started, measures_started
from soak.crashes.calls import has_strace
from soak.crashes.cycle import CASES, whole_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import ProcessPoolExecutor

    from soak.crashes.cycle import Whole

PART = "concurrency"
SHOWN = 5  # failures of a figure that are listed
MEASURES, COMPRESSIONS = 3, 2  # real starts at the same moment
NO_ROW = "no row lost, damaged or made twice; every process ends; readers see whole rows, and never fewer"


@dataclass(frozen=True, slots=True)
class Rounds:
    """One sort of round.

    Attributes:
        name: what processes do together.
        asked: what must hold.
        number: of rounds in the long run.
        work: gets a seed, and for models the folder of `base_made`; returns what went wrong.
        needs_base: it gets that folder.
    """

    name: str
    asked: str
    number: int
    work: Callable[..., list[str]]
    needs_base: bool = False


ROUNDS = {
    "measure": Rounds("8 processes measure into one store, 2 read it", NO_ROW, 40, measure.measured_together),
    "killed": Rounds(
        "the same, and one of them is killed",
        "the other 7 do not notice; all that it called kept is there",
        40,
        partial(measure.measured_together, is_one_killed=True),
    ),
    "write": Rounds("8 processes open one store in quick turns, 2 read it", NO_ROW, 40, measure.written_together),
    "tune": Rounds("8 processes tune into one cache, 2 read it", NO_ROW, 30, tune.tuned_together),
    "choose": Rounds("8 processes each keep 25 choices in one cache, 2 read it", NO_ROW, 15, tune.chosen_together),
    "layers": Rounds(
        "8 processes time layers into one file", "no time lost or measured twice", 40, tune.timed_together
    ),
    "compress": Rounds(
        "3 processes compress with one work folder into one place",
        "the folder is the one that a process alone writes; no text is read twice",
        10,
        models.compressed_together,
        needs_base=True,
    ),
    "save": Rounds(
        "4 processes save two models to one place, 2 load from it",
        "a load is one of the two or refused by name; nothing is left over",
        15,
        models.saved_together,
        needs_base=True,
    ),
    "save-in-two-steps": Rounds(
        "the same where two names cannot be swapped",
        "the same",
        15,
        partial(models.saved_together, can_swap=False),
        needs_base=True,
    ),
}
VANISHED, FAILING, UNREADABLE = 6, 12, 6  # of each case in the long run


def figures(seed: int, scale: float, jobs: int) -> Iterator[Figure]:
    """Yield the figures of this part as they come."""
    with tempfile.TemporaryDirectory(prefix="soak-concurrency-") as folder, pool(Path(folder), jobs) as executor:
        base = executor.submit(models.base_made, Path(folder)).result()
        for what, one in ROUNDS.items():
            yield rounds_figure(executor, what, one, base, seed=seed, number=share(one.number, scale))
        yield from disk_figures(executor, base, seed=seed, scale=scale)
        yield from start_figures(base, scale)


def rounds_figure(
    executor: ProcessPoolExecutor, what: str, one: Rounds, base: Path, *, seed: int, number: int
) -> Figure:
    """Return how so many rounds went."""
    seeds = [f"{seed} {what} {i}" for i in range(number)]
    done = list(executor.map(partial(one_round, what, base), seeds))
    lines = [f"{fault}   [{again(what, i, seed)}]" for i, faults in enumerate(done) for fault in faults]
    return figure(one.name, one.asked, f"{sum(map(bool, done))} rounds went wrong", lines, number)


def one_round(what: str, base: Path, seed: str) -> list[str]:
    """Return what went wrong in a round of one sort."""
    one = ROUNDS[what]
    return one.work(seed, base) if one.needs_base else one.work(seed)


def disk_figures(executor: ProcessPoolExecutor, base: Path, *, seed: int, scale: float) -> Iterator[Figure]:
    """Yield how every verb speaks of a disk that is read-only, gone, or broken."""
    wholes = dict(zip(CASES, executor.map(partial(whole_run, base=base), CASES), strict=True))
    asked = "one error with the path, what happened and what to do"
    yield disk_figure("a read-only disk", asked, executor.map(partial(disks.read_only, base=base), CASES), seed)
    work = [(name, wholes[name], f"{seed} vanished {i}", i) for name in CASES for i in range(share(VANISHED, scale))]
    found = executor.map(partial(_vanished, base), work)
    yield disk_figure("a disk that vanishes during the run", f"{asked}, or all of it made anew", found, seed)
    for name, most, one in (("writes", FAILING, _failing), ("reads", UNREADABLE, _unreadable)):
        title = f"a disk whose {name} fail from a call on"
        if not has_strace():
            yield not_shown(title, asked, "strace is not installed")
            continue
        numbers = range(share(most, scale))
        work = [(verb, wholes[verb], f"{seed} {name} {i}", i) for verb in CASES for i in numbers]
        end = "; afterwards a run ends as if nothing had been" if name == "writes" else ""
        yield disk_figure(title, asked + end, executor.map(partial(one, base), work), seed)


Job = tuple[str, "Whole", str, int]


def _vanished(base: Path, job: Job) -> list[str] | None:
    name, whole, seed, number = job
    return disks.vanished(name, base, whole, disks.WAYS[number % len(disks.WAYS)], seed)


def _failing(base: Path, job: Job) -> list[str] | None:
    return disks.failing(job[0], base, job[1], job[2])


def _unreadable(base: Path, job: Job) -> list[str] | None:
    return disks.unreadable(job[0], base, job[2])


def disk_figure(name: str, asked: str, found: Iterator[list[str] | None], seed: int) -> Figure:
    """Return a figure of runs on disks of which each has its faults; None: it could not be shown."""
    done = list(found)
    lines = [f"{fault}   [python -m soak concurrency --seed {seed}]" for one in done if one for fault in one]
    hidden = sum(one is None for one in done)
    if hidden == len(done) or (hidden and not lines):
        return not_shown(name, asked, f"a disk of memory cannot be mounted here ({hidden} of {len(done)} runs)")
    return figure(name, asked, f"{sum(map(bool, done))} runs said it badly ({', '.join(CASES)})", lines, len(done))


def start_figures(base: Path, scale: float) -> Iterator[Figure]:
    """Yield how real commands went that were started at the same moment."""
    number = max(2, share(MEASURES, scale))
    found = measures_started(number)
    asked = "all end with 0, wait for each other and say so, and no sample is lost"
    yield figure("real `narrows measure`, started together on one store", asked, f"{len(found)} faults", found, number)
    if share(COMPRESSIONS, scale) == COMPRESSIONS:
        found = compressions_started(COMPRESSIONS, base)
        name = "real `narrows compress`, started together with one work folder"
        asked = "all end with 0, and the folder is the one that a process alone writes"
        yield figure(name, asked, f"{len(found)} faults", found, COMPRESSIONS)


def share(most: int, scale: float) -> int:
    """Return a share of a number, at least 1."""
    return max(1, round(most * scale))


def again(what: str, number: int, seed: int) -> str:
    """Return the command that repeats a round."""
    return f"python -m soak.concurrency {what} {number} --seed {seed}"


def figure(name: str, asked: str, reached: str, faults: Sequence[str], count: int) -> Figure:
    """Return a figure that failed where there are faults."""
    return Figure(
        part=PART,
        name=name,
        asked=asked,
        reached=reached,
        status="failed" if faults else "ok",
        count=count,
        details=tuple(faults[:SHOWN]),
    )


def not_shown(name: str, asked: str, why: str) -> Figure:
    """Return a figure of what this machine cannot show."""
    return Figure(part=PART, name=name, asked=asked, reached=why, status="not shown")
