"""Whether files were on the disk before anything was called kept: read off the order of a run's system calls.

What is written is in memory until its file is forced (fsync); a new, changed or removed name until its
folder is. A name must not lead to content that is not forced yet: after a power cut it would be half a
file under a final name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from soak.crashes.calls import FORCING, OPENING, TELLING, WRITING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soak.crashes.calls import Call

# Locks say nothing; SQLite makes its shared memory anew from the log, and a measuring process its factors.
UNIMPORTANT = (".lock", "-shm", ".factors")


@dataclass(slots=True)
class Disk:
    """What would be lost now.

    Attributes:
        home: only what is inside counts.
        known: names that are there.
        loose: files with content that was not forced.
        unnamed: names that their folder was not forced for.
        faults: what was wrong so far, one line each.
        is_telling: the parent was told that something is kept.
    """

    home: str
    known: set[str] = field(default_factory=set)
    loose: set[str] = field(default_factory=set)
    unnamed: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    is_telling: bool = False

    def see(self, call: Call) -> None:
        """Follow one call."""
        if call.name == TELLING:
            self._told(call.text)
        elif not call.is_done or not self._counts(call.path):
            return
        elif call.name in FORCING:
            self._force(call.path)
        elif call.name in WRITING or "truncate" in call.name or call.name == "fallocate":
            self.loose.add(call.path)
        elif call.name in OPENING:
            self._open(call)
        elif call.name.startswith("mkdir"):
            self._name(call.path)
        elif call.name.startswith(("rename", "link")):
            self._rename(call)
        else:
            self._forget(call.path)

    def _told(self, text: str) -> None:
        """Note what is called kept or written though it could be lost."""
        if not text.startswith(("kept", "wrote")):
            return
        self.is_telling = True
        loose = [f"{self._short(path)} was not forced" for path in self.loose if self._is_final(path)]
        loose += [f"the folder of {self._short(path)} was not forced" for path in self.unnamed if self._is_final(path)]
        self.faults += [f"{one} to the disk before it was told: {text}" for one in sorted(loose)]
        self.loose, self.unnamed = set(), set()  # each is said once

    def _force(self, path: str) -> None:
        self.loose.discard(path)
        self.unnamed = {one for one in self.unnamed if str(PurePosixPath(one).parent) != path}

    def _open(self, call: Call) -> None:
        if "O_CREAT" in call.flags and call.path not in self.known:
            self._name(call.path)
        if "O_TRUNC" in call.flags:
            self.loose.add(call.path)

    def _name(self, path: str) -> None:
        self.known.add(path)
        self.unnamed.add(path)

    def _rename(self, call: Call) -> None:
        loose = {one for one in self.loose if _is_within(one, call.path)}
        unnamed = {one for one in self.unnamed if _is_within(one, call.path)} - {call.path}
        self._forget(call.path)
        if self._is_final(call.target):
            for path in sorted(loose | unnamed):
                told = f"{self._short(path)} was not forced before it got the name {self._short(call.target)}"
                self.faults.append(told)
        else:
            self.loose |= {call.target + one.removeprefix(call.path) for one in loose}
            self.unnamed |= {call.target + one.removeprefix(call.path) for one in unnamed}
        self._name(call.target)
        if "RENAME_EXCHANGE" in call.flags:
            self._name(call.path)

    def _forget(self, path: str) -> None:
        self.known = {one for one in self.known if not _is_within(one, path)}
        self.loose = {one for one in self.loose if not _is_within(one, path)}
        self.unnamed = {one for one in self.unnamed if not _is_within(one, path)}

    def _is_final(self, path: str) -> bool:
        """Say whether a name is one that readers look for: no part of it is hidden, as temporary names are."""
        return not any(part.startswith(".") for part in self._short(path).split("/"))

    def _counts(self, path: str) -> bool:
        parts = self._short(path).split("/")
        return path == self.home or (
            _is_within(path, self.home) and not any(one.endswith(UNIMPORTANT) for one in parts)
        )

    def _short(self, path: str) -> str:
        return path.removeprefix(f"{self.home}/")


def unforced(calls: Iterable[Call], home: str, *, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Return what could have been lost or halved by a power cut though it had been called kept; empty: nothing.

    Args:
        calls: of the whole run, in order, with the lines it told.
        home: absolute path without links; what lies outside does not count.
        known: absolute paths of what was there before.

    Raises:
        ValueError: the run never said that anything is kept, so that nothing was shown.
    """
    disk = Disk(home, set(known))
    for call in calls:
        disk.see(call)
    if not disk.is_telling:
        raise ValueError(f"the run in {home} told of nothing that is kept")
    return tuple(disk.faults)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
