"""Standard output belongs to what a verb prints; a library's own lines would break its JSON."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path


def own_stdout() -> None:
    """Send what anything else prints to standard output to standard error; `sys.stdout` stays what it is for readers.

    Libraries in C write to file descriptor 1 whatever Python does: MAGMA, below `torch.linalg` on a GPU, prints a
    warning there. Nothing is changed where one of the streams is closed or no file.
    """
    try:
        kept = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):  # None, replaced by an object without a file, closed
        return
    before = sys.stdout
    assert isinstance(before, io.TextIOWrapper)
    sys.stdout = io.TextIOWrapper(
        os.fdopen(kept, "wb"),
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )


def drop_stdout() -> None:
    """Send to nowhere what is still to be written: the interpreter flushes once more at exit, and would complain."""
    with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
