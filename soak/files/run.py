"""Cases in processes of their own, which outlive most cases and are replaced after a crash or a hang."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import time
import warnings
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Literal

import psutil  # type: ignore[import-untyped]

from narrows.errors import FileError, NarrowsError
from soak.files.change import OUTSIDE, put, tidy
from soak.files.watch import Watch, peak, reset_peak, virtual

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from soak.files.change import Change
    from soak.files.subject import Subject

CPU_SECONDS, SECONDS = 10.0, 60.0  # a case hangs that takes more of a core, or of the clock where it waits
SPARE = 64 << 20  # bytes of memory beside twice the file
ROOM = 2 << 30  # bytes of address space beside what a process starts with: more is an allocation that a file asked for
LONGEST = 2000  # characters of a message
SECRET = "secret.safetensors"  # noqa: S105 (a file's name)
Status = Literal["refused", "same", "other", "fault"]
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Case:
    """One case: drawn by its index, or a bit of a file."""

    subject: str
    index: int
    file: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case ended; a fault is told in `text`."""

    case: Case
    said: str
    status: Status
    text: str = ""


@dataclass(frozen=True)
class Run:
    """What every process of a run knows.

    Attributes:
        expected: subject -> what its whole example reads as.
    """

    subjects: Mapping[str, Subject]
    expected: Mapping[str, str]
    seed: int
    place: Path

    @classmethod
    def of(cls, subjects: Sequence[Subject], seed: int, place: Path) -> Run:
        """Return a run in which every reader has run twice: what it imports is not counted as memory of a case."""
        expected = {}
        for one in subjects:
            folder = _laid_out(one, place / "first")
            expected[one.name] = one.read(folder)
            if one.read(folder) != expected[one.name]:
                raise AssertionError(f"{one.name} reads twice as two different things")
        return cls({one.name: one for one in subjects}, expected, seed, place)

    def change(self, case: Case) -> Change:
        """Return the change of a case."""
        subject = self.subjects[case.subject]
        return subject.flipped(case.file, case.index) if case.file else subject.drawn(self.seed, case.index)

    def outcomes(self, cases: Sequence[Case], jobs: int) -> Iterator[Outcome]:
        """Yield the outcome of every case, in any order."""
        crews = [_Crew(self, number, deque(cases[number::jobs])) for number in range(jobs)]
        try:
            while busy := [one for one in crews if one.todo]:
                ready = wait([one.ask() for one in busy], timeout=1)
                for one in busy:
                    if one.connection in ready:
                        yield one.answer()
                    elif one.is_late:
                        yield one.given_up(
                            f"hangs: no end after {CPU_SECONDS:g} s of a core or {SECONDS:g} s of the clock"
                        )
        finally:
            for one in crews:
                one.close()


class _Crew:
    """One process at a time, and the cases that are left for it and its successors."""

    def __init__(self, run: Run, number: int, todo: deque[Case]) -> None:
        self.todo = todo
        self._run, self._number = run, number
        self._process: BaseProcess | None = None
        self._since = self._used_s = 0.0
        self.connection: Connection

    @property
    def is_late(self) -> bool:
        """The case at hand takes longer than any may."""
        return time.monotonic() - self._since > SECONDS or self._cpu_s() - self._used_s > CPU_SECONDS

    def _cpu_s(self) -> float:
        """Return the CPU time that the process took; of one that is gone nothing is known, nor asked any more."""
        assert self._process is not None
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(times.user + times.system)

    def _begin(self) -> None:
        """Count the time of a case from now on."""
        self._since, self._used_s = time.monotonic(), self._cpu_s()

    def ask(self) -> Connection:
        """Return where the next answer comes from; start a process where there is none."""
        if self._process is None:
            self.connection, theirs = _FORK.Pipe()
            arguments = (self._run, self._number, tuple(self.todo), theirs)
            self._process = _FORK.Process(target=_work, args=arguments, daemon=True)
            self._process.start()
            theirs.close()
            self._begin()
        return self.connection

    def answer(self) -> Outcome:
        """Return what came; the process that died without an answer died of the case it was at."""
        try:
            found: Outcome = self.connection.recv()
        except EOFError:
            assert self._process is not None
            self._process.join()
            return self.given_up(f"crashes: the process ended with {self._process.exitcode}")
        self.todo.popleft()
        if self.todo:
            self._begin()
        else:
            self.close()
        return found

    def given_up(self, text: str) -> Outcome:
        """End the process and return a fault of the case it was at."""
        self.close()
        case = self.todo.popleft()
        return Outcome(case, self._run.change(case).said, "fault", text)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.connection.close()
            self._process = None


def _work(run: Run, number: int, cases: Sequence[Case], connection: Connection) -> None:
    """Run cases one after another and send each one's outcome."""
    faulthandler.disable()
    quiet = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(quiet, output)
    warnings.simplefilter("ignore")
    place = run.place / f"worker-{number}"
    names = dict.fromkeys(case.subject for case in cases)
    folders = {name: _laid_out(run.subjects[name], place) for name in names}
    watch = Watch(*(folder.with_name(OUTSIDE) for folder in folders.values()))
    resource.setrlimit(resource.RLIMIT_AS, (virtual() + ROOM, resource.RLIM_INFINITY))
    for case in cases:
        connection.send(tried(run, case, folders[case.subject], watch))


def tried(run: Run, case: Case, folder: Path, watch: Watch) -> Outcome:
    """Return how one case ends in this process."""
    subject, change = run.subjects[case.subject], run.change(case)
    put(folder, change.files)
    before = reset_peak()
    watch.begin(folder, *([folder.with_name(OUTSIDE)] if change.is_followed else []))
    try:
        found, text = ("read", subject.read(folder))
    except NarrowsError as fault:
        found, text = "refused", _complaint(fault, change, folder)
    except BaseException as fault:  # noqa: BLE001 (the point of it: whatever is raised)
        found, text = "raised", f"{type(fault).__name__}: {fault}"[:500]
    seen, taken = watch.end(), peak() - before
    tidy(folder, subject.files, change.files)
    fault_text = _fault(found, text, seen, taken, 2 * subject.size(change) + SPARE)
    if fault_text:
        return Outcome(case, change.said, "fault", fault_text)
    if found == "refused":
        return Outcome(case, change.said, "refused")
    if text == run.expected[subject.name]:
        return _same(case, subject, change)
    if change.may_differ:
        return Outcome(case, change.said, "other")
    return Outcome(case, change.said, "fault", "reads as something else, and nobody is told")


def _fault(found: str, text: str, seen: tuple[str, ...], taken: int, limit: int) -> str:
    """Return what is wrong with how a case ended; empty: nothing."""
    if found == "raised":
        return f"raises {text}"
    if found == "refused" and text:
        return text
    if seen:
        return f"does more than read: {'; '.join(seen[:3])}"
    return f"takes {taken >> 20} MiB of memory, {limit >> 20} are allowed" if taken > limit else ""


def _same(case: Case, subject: Subject, change: Change) -> Outcome:
    """Return the outcome of a change that was read as the whole example: allowed where it means nothing."""
    if any(case.index // 8 in part for part in subject.bits.get(case.file, ())):
        return Outcome(case, change.said, "fault", "the flipped bit is not noticed")
    return Outcome(case, change.said, "same")


def _complaint(fault: NarrowsError, change: Change, folder: Path) -> str:
    """Return what is wrong with an error's text; empty: it is one sentence or some that name the file."""
    text = str(fault)
    if not text.strip() or not text.isprintable() or len(text) > LONGEST:
        return f"its message is no sentence: {text[:200]!r} ({len(text)} characters)"
    must_name = isinstance(fault, FileError) or not change.may_differ
    if must_name and not any(name in text for name in (str(folder), *change.files)):
        return f"its message names no file: {type(fault).__name__}: {text[:200]!r}"
    return ""


def _laid_out(subject: Subject, place: Path) -> Path:
    """Return a folder with a whole example in it, and the other example outside."""
    folder = place / subject.name / "folder"
    outside = folder.with_name(OUTSIDE)
    for made in (folder, outside):
        made.mkdir(parents=True, exist_ok=True)
    put(folder, subject.files)
    put(outside, {name.split("/")[-1]: data for name, data in subject.others.items()})
    tensors = next((data for name, data in subject.others.items() if name.endswith(".safetensors")), b"")
    put(outside, {SECRET: tensors})
    return folder
