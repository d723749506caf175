"""Kills at calls and at moments, full and small disks, real starts: how each is counted."""

from __future__ import annotations

import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soak._figure import Figure
from soak.crashes.calls import has_strace
from soak.crashes.full import needing_room, rooms
from soak.crashes.pool import Pool
from soak.crashes.process import hear_ctrl_c
from soak.crashes.starts import start_figures
from soak.crashes.stops import stop_figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from soak._figure import Status
    from soak.crashes.cycle import Cycle, Whole

PART = "crashes"
KILLS = 200  # a verb
FULL_CALLS, SMALL_DISKS = 200, 40  # a verb, at most
STARTS, STOPS, TERMS = 20, 100, 10  # real starts of a verb: killed, Ctrl-C, SIGTERM
SHOWN = 5  # failures of a figure that are listed
NO_STRACE = "strace is not installed"


def figures(seed: int, scale: float, jobs: int) -> Iterator[Figure]:
    """Yield the figures of this part as they come."""
    with tempfile.TemporaryDirectory(prefix="soak-crashes-") as place, Pool(Path(place), jobs) as pool:
        wholes = pool.wholes()
        yield from order_figures(pool, wholes)
        for name, whole in wholes.items():
            yield kill_figure(pool, name, whole, seed, number(KILLS, scale))
        for name, whole in wholes.items():
            yield full_figure(pool, name, whole, seed, number(FULL_CALLS, scale))
            yield disk_figure(pool, name, whole, seed, number(SMALL_DISKS, scale))
        hear_ctrl_c()
        yield from start_figures(pool.base, wholes, number(STARTS, scale), seed, jobs)
        wanted = {signal.SIGINT: number(STOPS, scale), signal.SIGTERM: number(TERMS, scale)}
        yield from stop_figures(pool.base, wholes, wanted, seed, jobs)


def order_figures(pool: Pool, wholes: dict[str, Whole]) -> Iterator[Figure]:
    """Yield whether everything is on the disk before it is called kept."""
    name, asked = "fsync of file and folder before anything is called kept", "in every run"
    if not has_strace():
        yield Figure(part=PART, name=name, asked=asked, reached=NO_STRACE, status="not shown")
        return
    found = {**pool.orders(), **{verb: whole.unforced for verb, whole in wholes.items()}}
    faults = [f"{writer}: {fault}" for writer, one in found.items() for fault in one]
    good = sum(not one for one in found.values())
    yield _figure(name, asked, f"{good} of {len(found)} ways to write ({', '.join(found)})", faults, len(found))


def kill_figure(pool: Pool, name: str, whole: Whole, seed: int, wanted: int) -> Figure:
    """Return how runs of a verb were made up for that were killed at calls and at moments."""
    kinds = ("call", "moment") if has_strace() else ("moment",)
    killed, faults = dict.fromkeys(kinds, 0), []
    for i, kind in enumerate(kinds):
        share = wanted // len(kinds) + (i < wanted % len(kinds))
        done = _killed(partial(pool.kills, kind, name, whole), f"{seed} {kind} {name}", share)
        killed[kind] = sum(one.is_ended for one in done)
        faults += [again(one, kind, name, number, seed) for number, one in enumerate(done)]
    total, bad = sum(killed.values()), sum(map(bool, faults))
    where = ", ".join(f"{count} at {'system calls' if kind == 'call' else 'moments'}" for kind, count in killed.items())
    asked = f"{wanted} kills; nothing kept is lost, and the next run ends as one that was never killed"
    lines = [line for found in faults for line in found]
    if total < wanted:
        lines.append(f"only {total} of {wanted} runs were killed before their end")
    return _figure(f"kill -9 of {name}", asked, f"{bad} of {total} went wrong ({where})", lines, total)


def _killed(kills: Callable[[Sequence[str]], list[Cycle]], seed: str, wanted: int) -> list[Cycle]:
    """Return cycles of which so many were killed before their end; twice as many at most."""
    done: list[Cycle] = []
    while (left := wanted - sum(one.is_ended for one in done)) > 0 and len(done) < 2 * wanted + 8:
        done += kills([f"{seed} {number}" for number in range(len(done), len(done) + left)])
    return done


def full_figure(pool: Pool, name: str, whole: Whole, seed: int, most: int) -> Figure:
    """Return how runs of a verb went whose disk was full from one of its system calls on."""
    title = f"a disk that is full from a system call on, {name}"
    asked = "one error with path and cause, nothing halved or lost, and a run with room makes up for it"
    if not has_strace():
        return Figure(part=PART, name=title, asked=asked, reached=NO_STRACE, status="not shown")
    places = needing_room(whole)
    chosen = places[:: -(-len(places) // most)]
    done = pool.full(name, whole, chosen)
    faults = [again(one, "full", name, place, seed) for one, place in zip(done, chosen, strict=True)]
    which = "each" if chosen == places else f"{len(chosen)}"
    errors = sum(one.is_ended for one in done)
    reached = f"{sum(map(bool, faults))} went wrong; {which} of {len(places)} calls, {errors} with an error"
    return _figure(title, asked, reached, [line for lines in faults for line in lines], len(done))


def disk_figure(pool: Pool, name: str, whole: Whole, seed: int, most: int) -> Figure:
    """Return how runs of a verb went on a small disk of memory."""
    title = f"a disk with too little room, {name}"
    asked = "as above, on a real disk of memory"
    sizes = rooms(pool.bound(name, whole), most, f"{seed} {name}")
    done = pool.disks(name, whole, sizes)
    shown = [(one, size) for one, size in zip(done, sizes, strict=True) if one is not None]
    if len(shown) < len(done):
        return Figure(part=PART, name=title, asked=asked, reached="a tmpfs cannot be mounted here", status="not shown")
    faults = [again(one, "disk", name, size, seed) for one, size in shown]
    short = sum(one.is_ended for one, _ in shown)
    reached = f"{sum(map(bool, faults))} went wrong; {short} of {len(sizes)} sizes were too small"
    return _figure(title, asked, reached, [line for lines in faults for line in lines], len(sizes))


def again(one: Cycle, kind: str, name: str, number: int, seed: int) -> list[str]:
    """Return a cycle's faults, with the command that repeats it."""
    return [f"{fault}   [python -m soak.crashes {kind} {name} {number} --seed {seed}]" for fault in one.faults]


def number(most: int, scale: float) -> int:
    """Return a share of a number, at least 1."""
    return max(1, round(most * scale))


def _figure(name: str, asked: str, reached: str, faults: Sequence[str], count: int) -> Figure:
    status: Status = "failed" if faults else "ok"
    return Figure(
        part=PART, name=name, asked=asked, reached=reached, status=status, count=count, details=tuple(faults[:SHOWN])
    )
