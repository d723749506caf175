"""Temporary names: a lock says that their process is alive; what nobody holds was left by a killed one."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def hold(file: int) -> None:
    """Hold an open file or folder until it is closed; another run may have removed it just before."""
    with suppress(OSError):  # a file system without locks: nothing is removed there
        fcntl.flock(file, fcntl.LOCK_EX)


def remove_left(found: Iterable[Path]) -> None:
    """Remove the files and folders that no process holds."""
    for path in found:
        with suppress(OSError):  # BlockingIOError: its process is alive; or it is gone, or another user's
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
            finally:
                os.close(file)
