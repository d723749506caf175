"""Work that processes take in turns: the first one does it, the others wait, and find it done."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from narrows._files._atomic import _explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    from filelock import BaseFileLock

TELL_SECONDS = 1.0  # between two times that a process says that it waits


def take_turn(path: str | PathLike[str], *, waiting: Callable[[], None] = lambda: None) -> BaseFileLock:
    """Return a lock that this process now holds; the system frees it when the process ends, however it does.

    Args:
        path: of the lock's file, in a folder that exists.
        waiting: called about once a second while another process holds it.

    Raises:
        OSError: the file cannot be made, as where its folder is missing.
    """
    if not Path(path).absolute().parent.is_dir():  # filelock would make it
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    lock = FileLock(path)
    seconds = 0.0
    while True:
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            waiting()
            seconds = TELL_SECONDS
        else:
            return lock


@contextmanager
def turn(path: str | PathLike[str], *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the turn of those who write a file, by a lock beside it, for the length of the block.

    Raises:
        ResourceError, FileError: as `write_text_atomic`.
    """
    try:
        lock = take_turn(f"{os.fspath(path)}.lock", waiting=waiting)
    except OSError as fault:
        raise _explained(Path(path), fault) from None
    try:
        yield
    finally:
        lock.release()
