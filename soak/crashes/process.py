"""A real run in a process of its own, started as a user starts it, and ended by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 180.0
POLL_SECONDS = 0.005
CHILDREN_SECONDS = 2.0  # within which the children of a killed process must be gone


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a real run ended.

    Attributes:
        code: exit code; negative: the signal.
        said: on standard error.
        seconds: from its start to its end.
        took: seconds from the signal to its end; None: it ended before.
        queued: of these, seconds that it waited for a processor that other programs had.
        orphans: its processes that were there 2 s after its end.
        kept: what was seen as kept just before the signal.
    """

    code: int
    said: str
    seconds: float
    took: float | None
    queued: float
    orphans: tuple[str, ...]
    kept: frozenset[str]


def started(
    words: Sequence[str],
    home: Path,
    *,
    after: float | None = None,
    by: signal.Signals = signal.SIGKILL,
    kept: Callable[[Path], frozenset[str]] = lambda _: frozenset(),
) -> Stopped:
    """Return how `python WORDS` ended that got a signal after some seconds; None: no signal.

    Args:
        words: "-m", "narrows", "measure" ...
        home: what it would keep for its user is kept there.
        after: seconds from its start.
        by: the signal.
        kept: says what is in the store, just before the signal.
    """
    began = time.monotonic()
    with (home.parent / "said").open("w+", encoding="utf-8") as said:
        run = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=_environment(home.parent),
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        took, queued, family, seen = None, 0.0, [], frozenset[str]()
        try:
            run.wait(LONGEST_SECONDS if after is None else after)
        except subprocess.TimeoutExpired:
            family, seen = _family(run.pid), kept(home)
            took, queued = _ended(run, by)
        seconds = time.monotonic() - began
        said.seek(0)
        return Stopped(run.returncode, said.read(), seconds, took, queued, _orphans(family), seen)


def _ended(run: subprocess.Popen[bytes], by: signal.Signals) -> tuple[float, float]:
    """Send a signal, and return seconds to the end, and those of them that it waited for a processor."""
    before, sent = _queued(run.pid), time.monotonic()
    after = before
    run.send_signal(by)
    while run.poll() is None:
        after = {**after, **_queued(run.pid)}
        if time.monotonic() - sent > LONGEST_SECONDS:
            run.kill()
        time.sleep(POLL_SECONDS)
    waited = [seconds - before.get(task, 0.0) for task, seconds in after.items()]
    return time.monotonic() - sent, max(waited, default=0.0)


def _queued(pid: int) -> dict[str, float]:
    """Return thread -> seconds that it could have run and had no processor; nothing where the system does not tell."""
    found = {}
    for one in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError, IndexError):  # the thread is gone
            found[one.parent.name] = int(one.read_text().split()[1]) / 1e9
    return found


def hear_ctrl_c() -> None:
    """Undo what a shell does for jobs in the background: SIGINT is ignored there, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _environment(place: Path) -> dict[str, str]:
    added = {f"XDG_{one}_HOME": str(place / one.lower()) for one in ("CACHE", "DATA", "STATE")}
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return {**kept, **added, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def _family(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _orphans(family: Sequence[psutil.Process]) -> tuple[str, ...]:
    _, alive = psutil.wait_procs(family, timeout=CHILDREN_SECONDS)
    for one in alive:
        one.kill()
    return tuple(f"process {one.pid} outlived the run" for one in alive)
