"""A disk that fills up while a run writes: system calls that are refused, and a small disk of memory."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soak.crashes.calls import FORCING, GROWING, NAMING, OPENING
from soak.crashes.case import temporary
from soak.crashes.child import Answer, run
from soak.crashes.cycle import CASES, Cycle, forking, left_well, made_up_for, sound, told_call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soak.crashes.calls import Call
    from soak.crashes.case import Case
    from soak.crashes.child import Ended
    from soak.crashes.cycle import Whole

NEEDING_ROOM = (*GROWING, *FORCING, *NAMING, *OPENING)  # calls that may find the disk full
CAUSES = ("No space left on device", "disk is full", "disk I/O error", "unable to open database file")
NOT_DONE = 3  # exit code
PAGE = os.sysconf("SC_PAGE_SIZE")
_USERS, _MOUNTS = 0x10000000, 0x00020000  # CLONE_NEWUSER, CLONE_NEWNS of Linux
_REMOUNT, _PRIVATE = 0x20, 0x4000 | 0x40000  # MS_REMOUNT; MS_REC and MS_PRIVATE


def needing_room(whole: Whole) -> list[int]:
    """Return the positions of the calls that may find the disk full."""
    return [i for i, call in enumerate(whole.calls) if call.name in NEEDING_ROOM]


def full_from_call(name: str, base: Path, whole: Whole, position: int) -> Cycle:
    """Return how a run went whose disk is full from one of its system calls on, and a second one with room."""
    case, call = CASES[name], whole.calls[position]
    where = f"disk full from {told_call(call)}"
    with forking(case, base) as home:
        work = partial(case.work, base, home)
        first = run(work, trace=_refused(whole.calls, position), log=home.parent / "log")
        faults = refused_well(case, home, whole, first)
        faults += made_up_for(case, home, whole, first, run(work))
    is_ended = first.answer is not None and first.answer.code == NOT_DONE
    return Cycle(is_ended, tuple(f"{where}: {fault}" for fault in faults), where)


def refused_well(case: Case, home: Path, whole: Whole, first: Ended) -> list[str]:
    """Return what is wrong with a run that found the disk full: it must name path and cause, and leave no halves."""
    faults = left_well(case, home, whole, first.told)
    faults += [f"left over: {one}" for one in temporary(home)]
    if first.answer is None or first.answer.code != NOT_DONE:
        return faults + sound(first)
    said = first.answer.said
    if not any(cause in said for cause in CAUSES):
        faults.append(f"does not name the cause: {said}")
    if str(home) not in said:
        faults.append(f"does not name the path: {said}")
    if said.count("error:") > 1 or "Traceback" in said or "fault in narrows" in said:
        faults.append(f"is not one clear error: {said}")
    return faults


def _refused(calls: Sequence[Call], position: int) -> list[str]:
    """Return strace's words for one call that fails, and all later ones that need room on the disk."""
    call = calls[position]
    options = [] if call.name in GROWING else [f"inject={call.name}:error=ENOSPC:when={call.number}"]
    for name in GROWING:
        later = [one.number for one in calls[position:] if one.name == name]
        options += [f"inject={name}:error=ENOSPC:when={min(later)}+"] if later else []
    return options


def bound_bytes(name: str, base: Path, whole: Whole) -> int:
    """Return more bytes than a run of a case needs on a disk: twice all that it leaves, and its store's log."""
    case = CASES[name]
    with forking(case, base) as home:
        run(partial(case.work, base, home))
        left = sum(one.stat().st_size for one in home.rglob("*"))
    log = PAGE * sum(call.name in GROWING for call in whole.calls)
    return 2 * left + log


def on_small_disk(name: str, base: Path, whole: Whole, room: int) -> Cycle | None:
    """Return how a run went on a disk with room for so many bytes, and a second one with enough; None: not shown."""
    with forking(CASES[name], base) as home:
        ended = run(lambda _: Answer(0, json.dumps(_in_small_disk(CASES[name], base, home, whole, room))))
        if ended.answer is None or ended.answer.code:
            raise RuntimeError(f"the small disk broke: {ended}")
        found = json.loads(ended.answer.said)
    return None if found is None else Cycle(found[0], tuple(found[1]), found[2])


def _in_small_disk(case: Case, base: Path, home: Path, whole: Whole, room: int) -> tuple[bool, list[str], str] | None:
    """Mount, run, look, give room and run again; in a child, whose mounts end with it."""
    from narrows.models import _save

    vars(_save).update(_check_space=lambda *_: None)  # it would refuse before anything is written
    work = partial(case.work, base, home)
    previous = Path(shutil.copytree(home, home.parent / "previous"))
    if not small_disk(home, 1 << 26):
        return None
    shutil.copytree(previous, home, dirs_exist_ok=True)
    taken = os.statvfs(home)
    _mount(home, (taken.f_blocks - taken.f_bfree) * PAGE + room, _REMOUNT)
    first = run(work)
    faults = refused_well(case, home, whole, first)
    _mount(home, 1 << 28, _REMOUNT)
    faults += made_up_for(case, home, whole, first, run(work))
    where = f"a disk with room for {room} bytes"
    is_ended = first.answer is not None and first.answer.code == NOT_DONE
    return is_ended, [f"{where}: {one}" for one in faults], where


def small_disk(folder: Path, size: int) -> bool:
    """Mount a disk of memory for this process and its children; False where the system does not let us."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_MOUNTS) and not _as_own_root(libc, user, group):
        return False
    libc.mount(None, b"/", None, _PRIVATE, None)
    return _mount(folder, size)


def _as_own_root(libc: ctypes.CDLL, user: int, group: int) -> bool:
    """Become root of a user namespace of our own, which may mount."""
    if libc.unshare(_USERS | _MOUNTS):
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    return True


def _mount(folder: Path, size: int, flags: int = 0) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.mount(b"none", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode()) == 0)


def rooms(bound: int, number: int, seed: str) -> list[int]:
    """Return sizes of disks from none to more than enough, in steps of a page, each step as likely."""
    pages = range(bound // PAGE + 1)
    drawn = random.Random(seed).sample(pages, min(number, len(pages)))  # noqa: S311 (a draw, not a secret)
    return sorted(PAGE * one for one in drawn)
