"""Disks that are read-only, that vanish, or that fail: one error, with the path, what happened, and what to do."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import random
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

from soak.crashes.calls import FORCING, GROWING, NAMING
from soak.crashes.case import telling
from soak.crashes.child import Answer, run
from soak.crashes.cycle import CASES, home_of, made_up_for, sound
from soak.crashes.full import small_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from soak.crashes.case import Case
    from soak.crashes.child import Ended, Tell
    from soak.crashes.cycle import Whole

WAYS = ("deleted", "moved away", "unmounted")
# What a run does again and again, or once: the disk goes after one of these calls.
MOMENTS: dict[str, tuple[str, str, str, int]] = {
    "measure": ("narrows.bench._store", "Store", "add_sample", 20),
    "compress": ("narrows.models._moments_store", "MomentsStore", "save", 2),
    "tune": ("narrows.kernels.tuned", "", "write", 5),
    "save": ("narrows.models._save", "", "_write_weights", 1),
}
READ_ONLY = ("Read-only file system", "readonly database", "no permission")
GONE = ("No such file", "does not exist", "is gone", "are gone", "unable to open database file", "disk I/O error")
FAILS = ("Input/output error", "disk I/O error", "unable to open database file", "malformed")
ADVICE = ("Give", "give", "Make", "Free", "Put it back")
USAGE, NOT_DONE = 2, 3  # exit codes
SIZE = 1 << 26  # bytes of a disk of memory
_READ_ONLY, _REMOUNT, _DETACH = 1, 0x20, 2  # MS_RDONLY, MS_REMOUNT, MNT_DETACH of Linux
FIRST_READS = 40  # one of so many reads fails


def read_only(name: str, base: Path) -> list[str] | None:
    """Return what is wrong with what a run says whose disk is read-only, after one that it was not for.

    None: a disk cannot be mounted here.
    """
    case = CASES[name]

    def on_disk(home: Path) -> list[str]:
        case.prepare(base, home)
        first = run(partial(case.work, base, home))
        _remounted_read_only(home)
        return [*sound(first), *told_well(home, run(partial(case.work, base, home)), READ_ONLY)]

    return _in_small_disk(case, base, on_disk)


def vanished(name: str, base: Path, whole: Whole, way: str, seed: str) -> list[str] | None:
    """Return what is wrong with a run whose folder is gone after one of its writes: it says so, or makes all anew.

    Args:
        name: of the case.
        base: what all runs read.
        whole: an undisturbed run.
        way: one of `WAYS`.
        seed: of the moment.
    """
    case, draw = CASES[name], random.Random(seed)  # noqa: S311 (a draw, not a secret)
    after = draw.randint(1, MOMENTS[name][3])

    def gone(home: Path) -> list[str]:
        case.prepare(base, home)
        ended = run(lambda tell: _work(case, base, home, tell, after=after, way=way))
        is_whole = _is_done(ended) and case.state(home) == whole.after
        return [] if is_whole else [f"{way} after write {after}: {one}" for one in told_well(home, ended, GONE)]

    if way == "unmounted":
        return _in_small_disk(case, base, gone)
    with home_of(case, base) as home:
        shutil.rmtree(home)
        home.mkdir()
        return gone(home)


def failing(name: str, base: Path, whole: Whole, seed: str) -> list[str]:
    """Return what is wrong with a run whose disk fails from one of its writes on, and with one that follows."""
    case, draw = CASES[name], random.Random(seed)  # noqa: S311 (a draw, not a secret)
    places = [i for i, call in enumerate(whole.calls) if call.name in {*GROWING, *FORCING, *NAMING}]
    position = draw.choice(places)
    call = whole.calls[position]
    later = {name: [one.number for one in whole.calls[position:] if one.name == name] for name in (*GROWING, *FORCING)}
    options = [f"inject={name}:error=EIO:when={min(numbers)}+" for name, numbers in later.items() if numbers]
    options += [f"inject={call.name}:error=EIO:when={call.number}"] if call.name in NAMING else []
    with home_of(case, base) as home:
        work = partial(case.work, base, home)
        first = run(work, trace=options, log=home.parent / "log")
        faults = [] if _is_done(first) else told_well(home, first, FAILS)
        faults += made_up_for(case, home, whole, first, run(work))
    return [f"fails from {call.name} {call.number} on: {one}" for one in faults]


def unreadable(name: str, base: Path, seed: str) -> list[str]:
    """Return what is wrong with what a run says that finds its store there, and cannot read all of it."""
    case, draw = CASES[name], random.Random(seed)  # noqa: S311 (a draw, not a secret)
    number = draw.randint(1, FIRST_READS)
    with home_of(case, base) as home:
        work = partial(case.work, base, home)
        faults = sound(run(work))
        ended = run(work, trace=[f"inject=pread64:error=EIO:when={number}+"], log=home.parent / "log")
        faults += [] if _is_done(ended) else told_well(home, ended, FAILS)
    return [f"reads fail from {number} on: {one}" for one in faults]


def told_well(home: Path, ended: Ended, causes: Sequence[str]) -> list[str]:
    """Return what is wrong with what a run said that could not be done: path, cause and advice, once."""
    if ended.answer is None or ended.answer.code not in {USAGE, NOT_DONE}:
        return [f"ended with {ended.status}: {ended.answer}"]
    said = ended.answer.said
    faults = []
    if str(home) not in said:
        faults.append(f"does not name the path: {said}")
    if not any(cause in said for cause in causes):
        faults.append(f"does not name the cause: {said}")
    if not any(word in said for word in ADVICE):
        faults.append(f"does not say what to do: {said}")
    if said.count("error: ") != 1 or "Traceback" in said or "fault in narrows" in said:
        faults.append(f"is not one clear error: {said}")
    return faults


def _is_done(ended: Ended) -> bool:
    return ended.answer is not None and ended.answer.code == 0


def _work(case: Case, base: Path, home: Path, tell: Tell, *, after: int, way: str) -> Answer:
    """Do a case's work in a child, whose folder goes after so many of its writes."""
    module, owner, name, _ = MOMENTS[case.name]
    where: Any = importlib.import_module(module)
    calls = 0

    def count(_: str) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            _go(home, way)

    telling(getattr(where, owner) if owner else where, name, count, lambda *_, **__: "written")
    return case.work(base, home, tell)


def _go(home: Path, way: str) -> None:
    if way == "unmounted":
        ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(home), _DETACH)
    elif way == "moved away":
        home.rename(home.with_name("elsewhere"))
    else:
        shutil.rmtree(home)


def _in_small_disk(case: Case, base: Path, look: Callable[[Path], list[str]]) -> list[str] | None:
    """Return what `look` finds on a disk of memory, in a child, whose mounts end with it; None: not shown."""
    with home_of(case, base) as home:
        shutil.rmtree(home)
        home.mkdir()
        ended = run(lambda _: Answer(0, json.dumps(look(home) if small_disk(home, SIZE) else None)))
    if ended.answer is None or ended.answer.code:
        raise RuntimeError(f"the disk of memory broke: {ended}")
    found: list[str] | None = json.loads(ended.answer.said)
    return found


def _remounted_read_only(home: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(home), b"tmpfs", _REMOUNT | _READ_ONLY, None):
        raise OSError(ctypes.get_errno(), "the disk could not be made read-only")
