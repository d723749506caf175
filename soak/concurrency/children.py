"""Several forked children that start at the same moment, each telling what it did."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Tell = Callable[[str], None]
    Work = Callable[[Tell], None]

LONGEST_SECONDS = 120.0  # all of a round's children end within seconds; what takes so long waits for ever
POLL_SECONDS = 0.005
BROKE = 70  # exit status of a child whose work raised what it should not


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    Attributes:
        status: exit status; negative: the signal that ended it.
        told: its lines, in order.
        is_late: it had not ended in time.
    """

    status: int
    told: tuple[str, ...]
    is_late: bool = False

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with a child that nobody killed."""
        if self.is_late:
            return (f"did not end within {LONGEST_SECONDS:.0f} s",)
        if self.status:
            return (f"ended with {self.status}: {self.told[-1] if self.told else ''}",)
        return ()


def together(works: Sequence[Work], *, kill_after: float | None = None) -> list[Ended]:
    """Return how children ended that did their works at the same time.

    Args:
        works: one a child; each gets a function that tells a line, which is kept before it returns.
        kill_after: seconds after which the first child is killed; None: none is.
    """
    with tempfile.TemporaryDirectory(prefix="soak-together-") as folder:
        gate, opener = os.pipe()
        paths = [Path(folder) / str(number) for number in range(len(works))]
        pids = [_forked(work, path, gate, opener) for work, path in zip(works, paths, strict=True)]
        os.close(gate)
        os.close(opener)  # all of them read the end of the pipe now
        statuses = _waited(pids, kill_after)
        return [Ended(status, _lines(path), is_late) for (status, is_late), path in zip(statuses, paths, strict=True)]


def _forked(work: Work, path: Path, gate: int, opener: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = BROKE
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.close(opener)
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        os.read(gate, 1)
        work(lambda line: _tell(file, line))
        status = 0
    except BaseException:  # noqa: BLE001 (whatever it was, the parent is to hear of it)
        _tell(file, traceback.format_exc())
    finally:
        os._exit(status)  # never the clean-up of the parent


def _tell(file: int, line: str) -> None:
    os.write(file, (line.replace("\n", "\0") + "\n").encode(errors="replace"))


def _lines(path: Path) -> tuple[str, ...]:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return tuple(line.replace("\0", "\n") for line in text.split("\n") if line)


def _waited(pids: Sequence[int], kill_after: float | None) -> list[tuple[int, bool]]:
    """Return (exit status, whether it was ended because it was late) of each."""
    began = time.monotonic()
    found: dict[int, tuple[int, bool]] = {}
    while len(found) < len(pids):
        spent = time.monotonic() - began
        for pid in set(pids) - set(found):
            is_late = spent > LONGEST_SECONDS
            if is_late or (kill_after is not None and pid == pids[0] and spent >= kill_after):
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, 0 if is_late else os.WNOHANG)
            if ended:
                found[pid] = (os.waitstatus_to_exitcode(status), is_late)
        time.sleep(POLL_SECONDS)
    return [found[pid] for pid in pids]


def stand_in(where: Any, **values: Any) -> None:
    """Put values in the place of a module's or a class's own, for good: in a child, which ends soon."""
    for name, value in values.items():
        setattr(where, name, value)


def pool(place: Path, jobs: int) -> ProcessPoolExecutor:
    """Return processes that have imported everything once, with one thread, and so can be forked."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_ready, initargs=(place,))


def _ready(place: Path) -> None:
    from narrows.cli._steps import quiet_libraries

    quiet_libraries()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.update({f"XDG_{one}_HOME": str(place / one.lower()) for one in ("CACHE", "DATA", "STATE")})
    os.environ.pop("TRITON_INTERPRET", None)  # nobody measures an interpreter
    import torch

    import narrows.bench
    import narrows.models  # noqa: F401

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
