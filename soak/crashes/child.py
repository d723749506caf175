"""Work in a forked child, which can be killed or refused at a moment or at a system call, and tells what it kept."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soak.crashes.calls import TRACED, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from soak.crashes.calls import Call

    Tell = Callable[[str], None]
    Work = Callable[[Tell], "Answer"]

LONGEST_SECONDS = 120.0  # a run takes about one; what takes so long hangs
BROKE = 70  # exit status of a child whose work raised what it should not
KEPT, WROTE, ANSWER = "kept ", "wrote ", "answer "


class Answer(NamedTuple):
    """What a run ended with: the exit code that a user would see, and what stood on standard error."""

    code: int
    said: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    Attributes:
        status: exit status; negative: the signal that ended it.
        told: "kept X" (must not be done again) and "wrote X" lines, in order, each after it was done.
        answer: None where it did not come to one.
        seconds: from the start of its work to its end.
        calls: system calls on files, where they were traced.
    """

    status: int
    told: tuple[str, ...]
    answer: Answer | None
    seconds: float
    calls: tuple[Call, ...] = ()

    @property
    def is_killed(self) -> bool:
        """A signal ended it."""
        return self.status < 0


def run(
    work: Work,
    *,
    kill_after: float | None = None,
    by: signal.Signals = signal.SIGKILL,
    trace: Sequence[str] | None = None,
    log: Path | None = None,
) -> Ended:
    """Return how a forked child that did the work ended.

    Args:
        work: gets a function that tells the parent what is kept.
        kill_after: seconds after which it gets a signal; None: it runs to its end.
        by: that signal.
        trace: options of strace ("inject=...") for a child that is traced; None: it is not.
        log: where strace writes.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _work(work, theirs)
    theirs.close()
    tracer = None if trace is None or log is None else _traced(pid, trace, log)
    began = time.monotonic()
    ours.sendall(b"!")
    lines = _heard(ours, pid, began, kill_after, by)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - began
    if tracer is not None:
        tracer.wait(LONGEST_SECONDS)
    told = tuple(line for line in lines if not line.startswith(ANSWER))
    answers = [line.removeprefix(ANSWER) for line in lines if line.startswith(ANSWER)]
    calls = () if tracer is None or log is None else parsed(log.read_text(errors="replace"))
    return Ended(os.waitstatus_to_exitcode(status), told, _answer(answers), seconds, calls)


def _work(work: Work, parent: socket.socket) -> None:
    """Do the work in the child; never returns."""
    status = BROKE
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        if not parent.recv(1):
            os._exit(0)
        answer = work(lambda line: parent.sendall(_line(line)))
        parent.sendall(_line(f"{ANSWER}{answer.code} {answer.said}"))
        status = 0
    except BaseException:  # noqa: BLE001 (whatever it was, the parent is to hear of it)
        parent.sendall(_line(f"{ANSWER}{BROKE} {traceback.format_exc()}"))
    finally:
        os._exit(status)  # never the clean-up of the parent


def _heard(ours: socket.socket, pid: int, began: float, kill_after: float | None, by: signal.Signals) -> list[str]:
    """Return the lines of a child until it ends, and end it when its time has come."""
    data = bytearray()
    is_killed = False
    with ours:
        while True:
            left = began + (LONGEST_SECONDS if kill_after is None or is_killed else kill_after) - time.monotonic()
            if not select.select([ours], [], [], max(left, 0.0))[0]:
                os.kill(pid, signal.SIGKILL if kill_after is None or is_killed else by)
                is_killed = True
                continue
            found = _received(ours)
            if not found:
                return [line.replace("\0", "\n") for line in data.decode().split("\n") if line]
            data += found


def _received(ours: socket.socket) -> bytes:
    """Return what a child said; nothing once it has ended."""
    try:
        return ours.recv(1 << 16)
    except ConnectionResetError:  # it was killed before it read that it may begin
        return b""


def _traced(pid: int, options: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Attach strace to a child that waits, and return it once it holds the child."""
    names = f"trace={','.join((*TRACED, 'sendto'))}"
    words = [option for one in (names, *options) for option in ("-e", one)]
    tracer = subprocess.Popen(
        ["strace", "-y", "-s", "300", *words, "-o", str(log), "-p", str(pid)], stderr=subprocess.DEVNULL
    )
    while not _is_traced(pid):
        if tracer.poll() is not None:
            os.kill(pid, signal.SIGKILL)
            raise RuntimeError(f"strace could not attach to a child: exit status {tracer.returncode}")
        time.sleep(0.001)
    return tracer


def _is_traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return "TracerPid:\t0\n" not in status


def _line(text: str) -> bytes:
    return (text.replace("\n", "\0") + "\n").encode(errors="replace")


def _answer(lines: Sequence[str]) -> Answer | None:
    if not lines:
        return None
    code, _, said = lines[-1].partition(" ")
    return Answer(int(code), said)
