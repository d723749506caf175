"""Real starts that are killed again and again, until one is let to its end."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from soak._figure import Figure
from soak.crashes.cycle import CASES, ended_well, home_of, left_well
from soak.crashes.measure import A_REPORT, ASKED, PREVIOUS, REPORT, STORE, RealMeasure
from soak.crashes.models import OUT, WORK, asked
from soak.crashes.process import started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from soak.crashes.case import Case
    from soak.crashes.cycle import Whole
    from soak.crashes.process import Stopped

LINKS = 4  # kills in a row before a run is let to its end
MINUTES = "0.02"  # of sampling, in all


@dataclass(slots=True)
class Chain:
    """What became of the starts of one verb.

    Attributes:
        ended: those that a signal ended.
        faults: one line each.
        runs: that went to their end.
    """

    ended: list[Stopped] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    runs: int = 0


def real(name: str, wholes: dict[str, Whole]) -> tuple[Case, Whole]:
    """Return the case of a real start, and what stands before and after it."""
    if name != "measure":
        return CASES[name], wholes[name]
    return RealMeasure(), replace(wholes[name], before={REPORT: PREVIOUS}, after={REPORT: A_REPORT})


def words(name: str, base: Path, home: Path) -> tuple[str, ...]:
    """Return what follows `python` for a run of a verb; tune has no device here, and save is no command."""
    if name == "measure":
        short = [MINUTES if word == "60" else word for word in ASKED]
        return ("-m", "narrows", *short, "--store", str(home / STORE), "-o", str(home / REPORT))
    if name == "compress":
        return ("-m", "narrows", *asked(base, home / OUT, home / WORK))
    return ("-m", "soak.crashes.work", name, str(base), str(home))


def chained(name: str, base: Path, wholes: dict[str, Whole], wanted: int, seed: str) -> Chain:
    """Return what became of so many starts of a verb that were killed at any moment, and of those between them."""
    case, whole = real(name, wholes)
    draw, chain = random.Random(seed), Chain()  # noqa: S311 (draws, not secrets)
    with home_of(case, base) as home:
        seconds = started(words(name, base, home), home).seconds
        chain.faults += ended_well(case, home, whole)
    while len(chain.ended) < wanted:
        with home_of(case, base) as home:
            told: frozenset[str] = frozenset()
            for _ in range(min(LINKS, wanted - len(chain.ended))):
                after = draw.uniform(0.0, seconds)
                end = started(words(name, base, home), home, after=after, kept=case.kept)
                _note(chain, end, f"killed after {after:.2f} s", left_well(case, home, whole, end.kept))
                told |= end.kept
            last = started(words(name, base, home), home)
            chain.runs += 1
            found = [f"ended with {last.code}: {last.said[-300:]}"] if last.code else []
            found += [f"lost in the end: {line}" for line in sorted(told - case.kept(home))]
            chain.faults += [f"the last start: {fault}" for fault in (*found, *ended_well(case, home, whole))]
    return chain


def _note(chain: Chain, end: Stopped, where: str, left: list[str]) -> None:
    """Note how a start ended that was to be killed, and what was wrong with what it left."""
    if end.took is not None:
        chain.ended.append(end)
    elif end.code:
        left = [f"ended with {end.code}: {end.said[-300:]}", *left]
    chain.faults += [f"{where}: {fault}" for fault in (*left, *end.orphans)]


def start_figures(base: Path, wholes: dict[str, Whole], wanted: int, seed: int, jobs: int) -> Iterator[Figure]:
    """Yield what became of real starts of every verb that were killed."""
    one = partial(_start_figure, base, wholes, wanted, seed)
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(one, CASES)


def _start_figure(base: Path, wholes: dict[str, Whole], wanted: int, seed: int, name: str) -> Figure:
    chain = chained(name, base, wholes, wanted, f"{seed} start {name}")
    seconds = sorted(end.seconds for end in chain.ended)
    reached = (
        f"{len(chain.faults)} went wrong; {len(seconds)} killed after {seconds[0]:.1f} to {seconds[-1]:.1f} s, "
        f"{chain.runs} let to their end"
    )
    again = f"   [python -m soak crashes --seed {seed}]"
    return Figure(
        part="crashes",
        name=f"kill -9 of real starts of {name}",
        asked=f"{wanted} kills; nothing seen as kept is lost, no process is left, and the last start ends as any",
        reached=reached,
        status="failed" if chain.faults else "ok",
        count=len(seconds),
        details=tuple(fault + again for fault in chain.faults[:5]),
    )
