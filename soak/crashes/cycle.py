"""One cycle: a run that is ended somewhere, what it must have left, and a second run that must make up for it."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from narrows.errors import NarrowsError
from soak.crashes.calls import OPENING, TELLING, has_strace
from soak.crashes.case import files, temporary
from soak.crashes.child import KEPT, WROTE, run
from soak.crashes.measure import Measure
from soak.crashes.models import Compress, Save
from soak.crashes.order import unforced
from soak.crashes.tune import Tune

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from soak.crashes.calls import Call
    from soak.crashes.case import Case
    from soak.crashes.child import Ended

CASES: dict[str, Case] = {case.name: case for case in (Measure(), Compress(), Save(), Tune())}


@dataclass(frozen=True, slots=True)
class Whole:
    """What a run of a case does that nothing disturbs.

    Attributes:
        before, after: what stands under final names at its start and at its end.
        files: that are there at its end.
        seconds: it takes.
        calls: on files in its home, or telling; none without strace.
        unforced: what it called kept before it was on the disk.
    """

    before: dict[str, str]
    after: dict[str, str]
    files: frozenset[str]
    seconds: float
    calls: tuple[Call, ...]
    unforced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cycle:
    """How a cycle went.

    Attributes:
        is_ended: the first run was ended before its own end.
        faults: what was wrong, one line each.
        where: the first run was ended at.
    """

    is_ended: bool
    faults: tuple[str, ...]
    where: str


@contextmanager
def forking(case: Case, base: Path) -> Iterator[Path]:
    """Lend a home for runs that this process forks."""
    case.ready(base)
    with home_of(case, base) as home:
        yield home


@contextmanager
def home_of(case: Case, base: Path) -> Iterator[Path]:
    """Lend a folder for one cycle, with what a run finds there."""
    with tempfile.TemporaryDirectory(prefix=f"soak-{case.name}-") as folder:
        home = Path(folder).resolve() / "home"
        home.mkdir()
        case.prepare(base, home)
        yield home


def report_made(base: Path) -> None:
    """Measure, so that there is a report, in a child: this process stays as it is.

    Raises:
        RuntimeError: it could not be made.
    """
    ended = run(lambda tell: CASES["measure"].work(base, base, tell))
    if ended.answer is None or ended.answer.code:
        raise RuntimeError(f"the report that runs read could not be made: {ended}")


def whole_run(name: str, base: Path) -> Whole:
    """Return what an undisturbed run of a case does.

    Raises:
        RuntimeError: it did not end well by itself.
    """
    case = CASES[name]
    with forking(case, base) as home:
        before, known = case.state(home), [str(one) for one in home.rglob("*")]
        trace: list[str] | None = [] if has_strace() else None
        ended = run(partial(case.work, base, home), trace=trace, log=home.parent / "log")
        if ended.answer is None or ended.answer.code:
            raise RuntimeError(f"{name} does not run here: {ended.answer}")
        calls = _own(ended.calls, home)
        found = unforced(calls, str(home), known=known) if trace is not None else ()
        return Whole(
            before=before,
            after=case.state(home),
            files=files(home),
            seconds=_seconds(case, base) if trace is not None else ended.seconds,
            calls=calls,
            unforced=found,
        )


def killed_at_call(name: str, base: Path, whole: Whole, seed: str) -> Cycle:
    """Return how a run went that is killed just before one of its system calls, each as likely."""
    call = random.Random(seed).choice(whole.calls)  # noqa: S311 (a draw, not a secret)
    inject = f"inject={call.name}:signal=SIGKILL:when={call.number}"
    return _cycle(name, base, whole, f"killed at {told_call(call)}", trace=[inject])


def killed_at_moment(name: str, base: Path, whole: Whole, seed: str) -> Cycle:
    """Return how a run went that is killed at a moment, each as likely."""
    seconds = random.Random(seed).uniform(0.0, whole.seconds)  # noqa: S311 (a draw, not a secret)
    return _cycle(name, base, whole, f"killed after {seconds:.4f} of {whole.seconds:.2f} s", kill_after=seconds)


def told_call(call: Call) -> str:
    """Return a call for people: its name, its number and the end of its path."""
    short = call.text if call.name == TELLING else "/".join(Path(call.path).parts[-2:])
    return f"{call.name} {call.number} ({short})"


def _cycle(
    name: str, base: Path, whole: Whole, where: str, *, trace: list[str] | None = None, kill_after: float | None = None
) -> Cycle:
    case = CASES[name]
    with forking(case, base) as home:
        work = partial(case.work, base, home)
        first = run(work, trace=trace, log=home.parent / "log", kill_after=kill_after)
        faults = [] if first.is_killed else sound(first)
        faults += left_well(case, home, whole, first.told)
        faults += made_up_for(case, home, whole, first, run(work))
    return Cycle(first.is_killed, tuple(f"{where}: {fault}" for fault in faults), where)


def sound(ended: Ended) -> list[str]:
    """Return what is wrong with a run that nothing stopped."""
    if ended.status == 0 and ended.answer is not None and ended.answer.code == 0:
        return []
    return [f"ended with {ended.status}: {ended.answer}"]


def left_well(case: Case, home: Path, whole: Whole, told: Iterable[str]) -> list[str]:
    """Return what is wrong with what a run left: halves under final names, or something told that is not there."""
    with tempfile.TemporaryDirectory(prefix="soak-look-") as folder:  # to look into a store changes it
        copy = Path(shutil.copytree(home, Path(folder) / "home"))
        found = case.state(copy)
        try:
            kept, faults = case.kept(copy), case.damage(copy)
        except (NarrowsError, sqlite3.Error) as fault:
            return [f"the store cannot be read: {fault}"]
    faults += [f"lost: {line}" for line in told if line.startswith(KEPT) and line not in kept]
    for name, state in found.items():
        if state not in {whole.before[name], whole.after[name]}:
            faults.append(f"{name} is neither the previous one nor the new one: {state[:80]}")
        elif f"{WROTE}{name}" in told and state != whole.after[name]:
            faults.append(f"{name} was called written and is the previous one")
    return faults


def made_up_for(case: Case, home: Path, whole: Whole, first: Ended, second: Ended) -> list[str]:
    """Return what is wrong with a second run: it must end as an undisturbed one, and do nothing again that was kept."""
    kept = {one for one in first.told if one.startswith(KEPT)}
    faults = sound(second) + [f"done again: {line}" for line in sorted(kept & set(second.told))]
    return [f"the second run: {fault}" for fault in (*faults, *ended_well(case, home, whole))]


def ended_well(case: Case, home: Path, whole: Whole) -> list[str]:
    """Return what is wrong with what a run left that went to its end: anything but what an undisturbed one leaves."""
    state = case.state(home)
    faults = [f"{name} is not that of an undisturbed run" for name in state if state[name] != whole.after[name]]
    faults += [f"left over: {one}" for one in sorted(files(home) - whole.files)]
    faults += [f"missing: {one}" for one in sorted(whole.files - files(home))]
    return faults + [f"left over: {one}" for one in temporary(home)]


def _seconds(case: Case, base: Path) -> float:
    """Return how long a run takes that is not traced."""
    with forking(case, base) as home:
        return run(partial(case.work, base, home)).seconds


def _own(calls: Sequence[Call], home: Path) -> tuple[Call, ...]:
    """Return the calls that change files in the home, and those that tell."""
    return tuple(
        call
        for call in calls
        if call.name == TELLING
        or (call.path.startswith(str(home)) and (call.name not in OPENING or "O_CREAT" in call.flags))
        or (call.path.startswith(str(home)) and call.name in OPENING and "O_TRUNC" in call.flags)
    )
