"""System calls that change files, as strace tells them of one process."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

WRITING = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range")
GROWING = (*WRITING, "fallocate", "mkdir", "mkdirat")  # need room on the disk
FORCING = ("fsync", "fdatasync", "sync_file_range")
NAMING = ("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat")
REMOVING = ("unlink", "unlinkat", "rmdir")
OPENING = ("openat", "open", "creat")
TRACED = (*GROWING, *FORCING, *NAMING, *REMOVING, *OPENING, "ftruncate", "truncate")
TELLING = "sendto"  # a line to the parent: something was called kept

_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*?)(?:\)\s+= (?P<result>-?\w+|\?).*)?$")
_QUOTED = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<folder>[^>]*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_OPENED = re.compile(r"\b\d+<([^>]*)>")


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Attributes:
        name: of the call.
        number: it is the n-th of this name in its process, from 1.
        path: of its file, absolute; empty where it has none.
        target: the new name of a rename or a link.
        flags: of an open, a rename.
        text: that was told, of a `sendto`.
        is_done: it did not fail.
    """

    name: str
    number: int
    path: str
    target: str = ""
    flags: str = ""
    text: str = ""
    is_done: bool = True


def has_strace() -> bool:
    """Say whether this machine has strace."""
    return shutil.which("strace") is not None


def parsed(log: str) -> tuple[Call, ...]:
    """Return the calls in the output of `strace -y`, in order."""
    found, counts = [], Counter[str]()
    for line in log.splitlines():
        match = _CALL.match(line)
        if match is None or line.startswith(("---", "+++")):
            continue
        counts[match["name"]] += 1
        found.append(_call(match["name"], counts[match["name"]], match["arguments"], match["result"]))
    return tuple(found)


def _call(name: str, number: int, arguments: str, result: str | None) -> Call:
    is_done = result is not None and not result.startswith(("-", "?"))
    if name == TELLING:
        quoted = _QUOTED.search(arguments)
        text = "" if quoted is None else quoted["path"].removesuffix("\\n")
        return Call(name, number, "", text=text, is_done=is_done)
    if name in {*WRITING, *FORCING, "fallocate", "ftruncate"}:
        opened = _OPENED.findall(arguments) or [""]
        return Call(name, number, opened[-1 if name == "copy_file_range" else 0], is_done=is_done)
    paths = [_absolute(one["folder"], one["path"]) for one in _QUOTED.finditer(arguments)]
    path, target, *_ = (*paths, "", "")
    return Call(name, number, path, target, flags=arguments.rpartition('"')[2], is_done=is_done)


def _absolute(folder: str | None, path: str) -> str:
    return str(PurePosixPath(folder or "/") / path)
