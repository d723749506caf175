"""What long work on a model shows: which step, how much of it is done; and quiet libraries."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import click

from narrows.cli._interrupt import importing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOG_SECONDS = 15.0
# torchao is imported with transformers, and logs which of its extensions for other devices do not load here.
NOISY = ("torchao", "torch.utils._pytree")


def quiet_libraries() -> None:
    """Import transformers with what it would fetch, draw and log kept off the net and the screen."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"})
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    with importing():
        import_module("narrows.models")


@contextmanager
def steps() -> Iterator[Callable[[str, int, int], None]]:
    """Lend a function that shows what is done: one line that changes on a terminal, a line each 15 s in a log."""
    is_terminal, shown = sys.stderr.isatty(), time.monotonic()

    def show(what: str, done: int, of: int) -> None:
        nonlocal shown
        if is_terminal:
            click.echo(f"\r\x1b[K{what}: {done} of {of}", err=True, nl=False)
        elif time.monotonic() - shown >= LOG_SECONDS:
            shown = time.monotonic()
            click.echo(f"{what}: {done} of {of}", err=True)

    try:
        yield show
    finally:
        if is_terminal:
            click.echo("\r\x1b[K", err=True, nl=False)
