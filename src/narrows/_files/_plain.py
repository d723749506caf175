"""Whole files as bytes: only regular ones, so that nobody waits for a pipe or reads a device without end."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from narrows.errors import FileError

if TYPE_CHECKING:
    from os import PathLike


def read_text(path: str | PathLike[str]) -> str:
    """Return a file's UTF-8 text, without a byte order mark and with every line ended by a line feed.

    Raises:
        FileError: as `read_file`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_file(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def read_file(path: str | PathLike[str], *, advice: str = "") -> bytes:
    """Return what a file holds.

    Args:
        path: of a regular file, or a link to one.
        advice: a sentence that ends the message.

    Raises:
        FileError: it is not there, is no regular file, or cannot be read.
    """
    end = f" {advice}" if advice else ""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its writer
        with os.fdopen(file, "rb") as opened:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise FileError(f"{os.fspath(path)} is not a regular file.{end}")
            return opened.read()
    except OSError as fault:
        raise FileError(f"{os.fspath(path)} cannot be read: {fault.strerror or fault}.{end}") from None
