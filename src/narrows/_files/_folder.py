"""Folders that appear whole: filled beside the target, forced to disk, then put in its place."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from narrows._files._atomic import FULL, _explained
from narrows.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

NEW, OLD = ".new", ".old"  # what is being filled; what was replaced, where the two cannot be swapped
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_CANNOT_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENOTSUP})


@contextmanager
def whole_folder(path: str | PathLike[str]) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends, it takes the place of the folder at `path`.

    On any failure, also a kill or a full disk, `path` keeps what it held. What killed runs left
    beside it is removed when the next one starts. On file systems that can swap two names (most of
    Linux) there is no moment without a folder at `path`; elsewhere a kill between two renames
    leaves the previous folder beside it, and the next run puts it back first.

    Raises:
        ResourceError: the disk is full.
        FileError: the folder above is missing or may not be written to, or `path` is not a folder.
    """
    target = Path(os.path.realpath(path))  # a link keeps pointing at what is written
    if target.exists() and not target.is_dir():
        raise FileError(f"{path} is not a folder: it will not be replaced. Give another path.")
    try:
        _recover(target)
        made, lock = _made(target)
    except OSError as fault:
        raise _explained(Path(path), fault) from None
    is_filled = False
    try:
        yield made
        is_filled = True
        _finish(made, target)
    except BaseException as fault:
        shutil.rmtree(made, ignore_errors=True)
        if isinstance(fault, OSError) and (is_filled or fault.errno in FULL):
            raise _explained(Path(path), fault) from None
        raise
    finally:
        os.close(lock)


def _made(target: Path) -> tuple[Path, int]:
    """Return a new folder beside the target, and the open file that says that this process is alive."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=NEW, dir=target.parent))
        lock = os.open(made, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made.exists():  # another run takes a folder that nobody holds yet for a leftover
            return made, lock
        os.close(lock)


def _recover(target: Path) -> None:
    """Put back what a killed run had moved away, and remove what killed runs left."""
    for old in _beside(target, OLD):
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)
    for made in _beside(target, NEW):
        with suppress(OSError):  # BlockingIOError: its process is alive
            lock = os.open(made, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(made, ignore_errors=True)
            finally:
                os.close(lock)


def _beside(target: Path, suffix: str) -> list[Path]:
    pattern = f".{escape(target.name)}.{'?' * 8}{suffix}"  # mkdtemp adds 8 letters
    return [found for found in target.parent.glob(pattern) if found.is_dir() and not found.is_symlink()]


def _finish(made: Path, target: Path) -> None:
    """Make the filled folder durable and give it its name."""
    made.chmod(_mode(target))
    for place, _, files in os.walk(made):
        for name in files:
            _sync(Path(place) / name, mode=0o666 & ~_umask())
        _sync(Path(place))
    if not target.exists():
        made.rename(target)
        _sync(target.parent)
        return
    replaced = made if _exchange(made, target) else _moved_aside(made, target)
    _sync(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _moved_aside(made: Path, target: Path) -> Path:
    """Replace the target in two steps, and return where its previous folder is now."""
    old = made.with_suffix(OLD)
    target.rename(old)
    try:
        made.rename(target)
    except BaseException:
        old.rename(target)
        raise
    return old


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))


def _sync(path: Path, mode: int | None = None) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        if mode is not None:
            os.fchmod(file, mode)
        os.fsync(file)
    finally:
        os.close(file)


def _mode(target: Path) -> int:
    """Return the permissions of the folder that is replaced, or those that this process gives new ones."""
    return target.stat().st_mode & 0o7777 if target.exists() else 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
