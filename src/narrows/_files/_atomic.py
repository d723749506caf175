"""Files that appear whole: written beside the target, forced to disk, then renamed over it."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from narrows._files._leftovers import hold, remove_left
from narrows.errors import FileError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import torch

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
CROWDED = frozenset({errno.EMFILE, errno.ENFILE})  # no file can be opened any more
BROKEN = frozenset({errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE})  # of a disk that fails or is gone


def write_text_atomic(path: str | PathLike[str], text: str) -> None:
    """Write UTF-8 text; afterwards the file is the new one, or, on any failure, the old one.

    Raises:
        ResourceError: the disk is full, or fails.
        FileError: the folder is missing, or may not be written to; or the target is no plain file.
    """
    _replace(Path(path), text.encode())


def write_bytes_atomic(path: str | PathLike[str], data: bytes) -> None:
    """Write bytes; otherwise as `write_text_atomic`."""
    _replace(Path(path), data)


def write_tensors_atomic(
    path: str | PathLike[str], tensors: Mapping[str, torch.Tensor], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; afterwards it is the new one, or, on any failure, the old one.

    Args:
        path: where to.
        tensors: name -> tensor; none may share memory with another.
        metadata: text that is kept in the header.

    Raises:
        ResourceError: the disk is full, or fails.
        FileError: the folder is missing, or may not be written to; or the target is no plain file.
    """
    from safetensors.torch import save

    kept = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    data = save(kept, metadata=dict(metadata) if metadata else None)
    _replace(Path(path), data)


def check_target(path: str | PathLike[str]) -> None:
    """Pass a path that can be written now, so that a long run does not find out at its end.

    Raises:
        ResourceError, FileError: as `write_text_atomic`.
    """
    target = Path(os.path.realpath(path))
    try:
        _mode(target)
        file, temporary = _beside(target)
        temporary.unlink()
        os.close(file)
    except OSError as fault:
        raise _explained(Path(path), fault) from None


def _replace(path: Path, data: bytes) -> None:
    """Write a new file, make it durable, and put it in the place of `path`."""
    target = Path(os.path.realpath(path))  # a link keeps pointing at what is written
    try:
        mode = _mode(target)
        file, temporary = _beside(target)
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchmod(file, mode)
                os.fsync(file)
                temporary.replace(target)  # while it is held: what nobody holds is taken for a leftover
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except OSError as fault:
        raise _explained(path, fault) from None


def make_folder(path: Path) -> None:
    """Make a folder with those above it that are missing, and force their names to disk.

    Raises:
        OSError: it cannot be made.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in missing:
        _sync_folder(one.parent)


def _beside(target: Path) -> tuple[int, Path]:
    """Return a new open file beside the target, held by this process; what killed runs left there is removed."""
    prefix = f".{target.name[:100]}."
    remove_left(target.parent.glob(f"{escape(prefix)}{'?' * 8}.tmp"))  # mkstemp adds 8 letters
    while True:
        file, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=target.parent)
        hold(file)
        if Path(name).exists():
            return file, Path(name)
        os.close(file)


def _mode(target: Path) -> int:
    """Return the permissions of the file that is replaced, or those that this process gives new ones."""
    if target.exists():
        found = target.stat().st_mode
        if not stat.S_ISREG(found):
            raise FileError(f"{target} is not a regular file: it will not be replaced. Give another path.")
        return stat.S_IMODE(found)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """Force the rename itself to disk."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _explained(path: Path, fault: OSError) -> FileError | ResourceError:
    if fault.errno in FULL:
        return ResourceError(f"{path} was not written: {fault.strerror}. Free some space, or give another path.")
    if fault.errno in CROWDED:
        return ResourceError(f"{path} was not written: {fault.strerror}. Close some, or raise the limit (ulimit -n).")
    if fault.errno in BROKEN:
        return ResourceError(f"{path} was not written: {fault.strerror}. Its disk fails: give a path on another one.")
    if isinstance(fault, (FileNotFoundError, NotADirectoryError)) and not path.absolute().parent.is_dir():
        return FileError(f"{path} was not written: the folder {path.parent} does not exist. Make it first.")
    return FileError(f"{path} was not written: {fault.strerror}. Give a path that you may write to.")
