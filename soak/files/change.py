"""One change of a folder of files: what lies where in place of what was there."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OUTSIDE = "outside"  # a folder beside the one that is read: nothing in it may be opened
OddKind = Literal["link", "hard link", "loop", "endless", "pipe", "folder", "socket", "dangling"]


@dataclass(frozen=True, slots=True)
class Odd:
    """Something that is no plain file.

    Attributes:
        kind: "link" and "hard link" lead to the file of that name outside of the folder, "loop" to itself, "endless"
            to /dev/zero, "dangling" to nothing; the others are a pipe without a writer, a folder, a socket.
    """

    kind: OddKind


@dataclass(frozen=True, slots=True)
class Change:
    """What a mutation does to the files of a subject.

    Attributes:
        said: in words.
        files: name -> what lies there now; None: nothing.
        may_differ: whoever reads them cannot know that they were changed (no digest covers them, or the digest was
            made anew), so that another result is no fault; a crash still is.
        is_followed: a link out of the folder is what the user named, so it may be followed.
    """

    said: str
    files: Mapping[str, bytes | Odd | None]
    may_differ: bool = False
    is_followed: bool = False


def put(folder: Path, files: Mapping[str, bytes | Odd | None]) -> None:
    """Make the folder hold these files under these names; others stay."""
    for name, content in files.items():
        path = folder / name
        _remove(path)
        if isinstance(content, Odd):
            _put_odd(path, content.kind, outside_of(folder) / path.name)
        elif content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def outside_of(folder: Path) -> Path:
    """Return the folder beside a folder that nobody who reads that one may open."""
    return folder.with_name(OUTSIDE)


def tidy(folder: Path, wanted: Mapping[str, bytes], changed: Mapping[str, bytes | Odd | None]) -> None:
    """Undo a change: put back what was changed, and remove what else appeared (locks, logs of a database)."""
    put(folder, {name: wanted.get(name) for name in changed})
    known = {name.split("/")[0] for name in wanted}
    for found in os.scandir(folder):
        if found.name not in known:
            _remove(folder / found.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _put_odd(path: Path, kind: OddKind, outside: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "hard link":
        path.hardlink_to(outside)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "dangling":
        path.symlink_to(path.with_name("nothing-there"))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        _put_socket(path)


def _put_socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)  # an address has 107 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)
