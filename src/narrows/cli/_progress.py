"""What a long measurement shows while it runs: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from narrows.bench import Progress

LOG_SECONDS = 15.0


def _clock(seconds: float) -> str:
    return f"{int(max(seconds, 0)) // 60}:{int(max(seconds, 0)) % 60:02d}"


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """Lend a function that shows what is measured and how long is left at most (on standard error)."""
    if not sys.stderr.isatty():
        yield _Log()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    text = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(bar_width=24), TextColumn("{task.fields[left]}"), text)
    # Drawn between rows only: a thread that redraws ten times a second would run beside what is timed.
    with Bar(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("starting", total=1.0, left="")

        def show(step: Progress) -> None:
            left = f"at most {_clock(step.budget - step.spent)} left"
            if step.is_notice:
                bar.console.print(step.text, markup=False, highlight=False)
            bar.update(task, completed=min(step.spent / step.budget, 1.0), description=step.text, left=left)
            bar.refresh()

        yield show


class _Log:
    """Prints a step when 15 s have passed since the last one it printed."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, step: Progress) -> None:
        if step.is_notice:
            click.echo(step.text, err=True)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_SECONDS
            click.echo(f"[at most {_clock(step.budget - step.spent)} left] {step.text}", err=True)
