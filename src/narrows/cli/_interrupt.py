"""Ctrl-C ends the command within a second, also inside a long call into C, which Python does not interrupt.

What is on the disk is whole at any moment, so that ending at once loses no more than a kill would.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE_SECONDS = 0.7  # for the usual way out: 0.1 s to end a measuring child, the rest for a busy machine
INTERRUPTED = 130
SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it
_is_said = threading.Event()


def end_at_ctrl_c() -> None:
    """Watch for Ctrl-C from now on, where it is not ignored (as a shell has it for jobs in the background)."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(read_end,), name="ctrl-c", daemon=True).start()


@contextmanager
def importing() -> Iterator[None]:
    """Raise KeyboardInterrupt behind the block, not in it: libraries in C++ abort where a callback of theirs raises.

    The command ends within a second all the same: `end_at_ctrl_c` watches apart from this.
    """
    handler, came = signal.getsignal(signal.SIGINT), threading.Event()
    if handler is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: came.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came.is_set():
        raise KeyboardInterrupt


@contextmanager
def going_on(kept: str) -> Iterator[None]:
    """Say at Ctrl-C what is kept and how to go on.

    Args:
        kept: "everything measured so far".
    """
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"stopped: {kept} is kept; run the same command to continue.", err=True)
        raise


def said() -> None:
    """Note that the user was told of the interruption: nothing is left but to end."""
    _is_said.set()


def _watch(read_end: int) -> None:
    """Wait for Ctrl-C, then for the usual way out; take the short one when that does not come."""
    while os.read(read_end, 1) != bytes([signal.SIGINT]):
        continue
    if not _is_said.wait(GRACE_SECONDS):
        cursor = SHOW_CURSOR if sys.stderr.isatty() else ""
        text = "stopped in the middle of a step: what was kept before it stays; run the same command to continue."
        os.write(2, f"{cursor}\n{text}\n".encode())
    os._exit(INTERRUPTED)
