"""Folders that appear whole: filled beside the target, forced to disk, then put in its place."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from narrows._files._atomic import BROKEN, FULL, _explained
from narrows._files._leftovers import hold, remove_left
from narrows.errors import FileError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

NEW, OLD = ".new", ".old"  # what is being filled; what was replaced, where the two cannot be swapped
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_CANNOT_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENOTSUP})
_OF_THE_DISK = FULL | BROKEN | {errno.EROFS}
_RACED = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST})  # another process made or took the target just now


@contextmanager
def whole_folder(path: str | PathLike[str]) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends, it takes the place of the folder at `path`.

    On any failure, also a kill or a full disk, `path` keeps what it held. What killed runs left
    beside it is removed when the next one starts. On file systems that can swap two names (most of
    Linux) there is no moment without a folder at `path`; elsewhere a kill between two renames
    leaves the previous folder beside it, and the next run puts it back first.

    Raises:
        ResourceError: the disk is full, or fails.
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
        _check_same(made, lock, target)
        _finish(made, target)
    except BaseException as fault:
        is_ours = is_filled or not os.path.exists(made)  # noqa: PTH110 (False also where the disk fails)
        shutil.rmtree(made, ignore_errors=True)
        if isinstance(fault, OSError) and (is_ours or fault.errno in _OF_THE_DISK):
            raise _explained(Path(path), fault) from None
        raise
    finally:
        os.close(lock)


def _made(target: Path) -> tuple[Path, int]:
    """Return a new folder beside the target, and the open file that says that this process is alive."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=NEW, dir=target.parent))
        try:
            lock = os.open(made, os.O_RDONLY)
        except FileNotFoundError:  # another run took it, which nobody held yet, for a leftover
            continue
        except OSError:
            made.rmdir()
            raise
        hold(lock)
        if made.exists():
            return made, lock
        os.close(lock)


def _check_same(made: Path, lock: int, target: Path) -> None:
    """Raise ResourceError where the folder was deleted or moved while it was filled: what fills it makes it again."""
    opened = os.fstat(lock)
    found = made.stat() if made.exists() else None
    if found is None or (found.st_dev, found.st_ino) != (opened.st_dev, opened.st_ino):
        raise ResourceError(
            f"{target} was not written: the folder {made} that was being filled for it was deleted or moved, or its "
            "disk is gone. Run the same again, or give another path."
        )


def _recover(target: Path) -> None:
    """Put back what a killed run had moved away, and remove what killed runs left."""
    remove_left(_beside(target, NEW))
    for old in _beside(target, OLD):
        if old.with_suffix(NEW).exists():  # its process is alive, between its two renames
            continue
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            continue
        try:
            old.rename(target)
        except OSError as fault:
            if fault.errno not in _RACED:
                raise


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
    replaced = _placed(made, target)
    _sync(target.parent)
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def _placed(made: Path, target: Path) -> Path | None:
    """Give the filled folder its name, whoever else does the same; return where the replaced one is now."""
    while True:
        try:
            if target.exists():
                return made if _exchange(made, target) else _moved_aside(made, target)
            made.rename(target)
        except OSError as fault:
            if fault.errno not in _RACED or not made.exists():
                raise
        else:
            return None


def _moved_aside(made: Path, target: Path) -> Path:
    """Replace the target in two steps, and return where its previous folder is now."""
    old = made.with_suffix(OLD)
    target.rename(old)
    try:
        made.rename(target)
    except BaseException:
        with suppress(OSError):  # another process has put its own there
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)
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
