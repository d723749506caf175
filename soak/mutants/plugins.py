"""What runs inside pytest: the chosen tests in the chosen order under a limit each, and which lines each test runs."""

from __future__ import annotations

import functools
import inspect
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

OUTSIDE_S = 30.0  # limit of imports, collection and what lies between two tests
WAITING = 10.0  # times its limit of CPU time is what a test may take by the clock
CACHED = type(functools.cache(len))
Lines = dict[str, set[int]]


class Chosen:
    """Runs the tests that are named, in this order; a test that outlives its limit ends the process by a signal.

    Attributes:
        failed: the first test that failed, or what went wrong before any ran; "" for nothing.
        why: first line of the failure.
    """

    def __init__(self, limits_s: Mapping[str, float], now: Path) -> None:
        """Take the tests with their limits of CPU time, and the file that holds the name of the one that runs."""
        self.failed, self.why = "", ""
        self._limits_s = limits_s
        self._now = now
        _limit("before the first test", OUTSIDE_S, now)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the chosen tests."""
        found = {item.nodeid: item for item in items}
        items[:] = [found[name] for name in self._limits_s if name in found]
        missing = [name for name in self._limits_s if name not in found]
        if missing:
            self._note(missing[0], "is not collected")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Limit one test."""
        _limit(item.nodeid, self._limits_s[item.nodeid], self._now)
        try:
            return (yield)
        finally:
            _limit("between two tests", OUTSIDE_S, self._now)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        if report.failed:
            self._note(report.nodeid, _first_line(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a test file that cannot be imported."""
        if report.failed:
            self._note(report.nodeid, _first_line(report))

    def _note(self, name: str, why: str) -> None:
        if not self.failed:
            self.failed, self.why = name, why


class Traced:
    """Notes how long each test takes and which lines of functions in some files it runs.

    Functions that run on import, and in fixtures that several tests share, count for every test of the file.

    Attributes:
        tests: of those that passed: name -> (seconds, lines).
        failing: name -> why.
    """

    def __init__(self, root: Path, folder: str) -> None:
        """Trace what lies in a folder of the tree; "": nothing is traced."""
        self.tests: dict[str, tuple[float, Lines]] = {}
        self.failing: dict[str, str] = {}
        self._root, self._prefix = f"{root}/", f"{root / folder}/" if folder else ""
        self._lines: Lines = {}
        self._shared: Lines = {}
        self._passed = False

    def pytest_sessionstart(self) -> None:
        """Begin."""
        if self._prefix:
            _hide_from_compilers(Traced._enter, Traced._step)
            threading.settrace(self._enter)
            sys.settrace(self._enter)

    def pytest_collection_finish(self) -> None:
        """Keep what ran on import."""
        self._shared, self._lines = self._lines, {}

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        """Keep what a shared fixture ran."""
        if fixturedef.scope == "function":
            return (yield)
        before, self._lines = self._lines, {}
        try:
            return (yield)
        finally:
            _merge(self._shared, self._lines)
            self._lines = before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Time one test and keep what it ran."""
        _forget_results()
        self._lines, self._passed, began = {}, False, time.perf_counter()
        try:
            return (yield)
        finally:
            if self._passed and item.nodeid not in self.failing:
                self.tests[item.nodeid] = (time.perf_counter() - began, self._lines)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome."""
        if report.failed:
            self.failing[report.nodeid] = _first_line(report)
        elif report.when == "call":
            self._passed = report.passed

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a test file that cannot be imported."""
        if report.failed:
            self.failing[report.nodeid] = _first_line(report)

    def pytest_sessionfinish(self) -> None:
        """End."""
        sys.settrace(None)
        threading.settrace(None)

    def found(self) -> dict[str, Any]:
        """Return what was noted, as JSON takes it; files as named from the root."""
        return {
            "tests": {name: {"seconds": s, "lines": self._named(lines)} for name, (s, lines) in self.tests.items()},
            "failing": self.failing,
        }

    def _named(self, lines: Lines) -> dict[str, list[int]]:
        every: Lines = {}
        _merge(every, lines)
        _merge(every, self._shared)
        return {file.removeprefix(self._root): sorted(numbers) for file, numbers in sorted(every.items())}

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ARG002 (of sys.settrace)
        is_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED  # and no body of a module or a class
        return self._step if is_function and frame.f_code.co_filename.startswith(self._prefix) else None

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ARG002 (of sys.settrace)
        if event == "line":
            self._lines.setdefault(frame.f_code.co_filename, set()).add(frame.f_lineno)
        return self._step


def options(files: Sequence[str], root: Path) -> list[str]:
    """Return pytest's command line for some test files: nothing is written outside of the tree, seeds are fixed.

    Tracebacks are Python's: with pytest's own, printing the arguments of one failed test took 10 s.
    """
    return [
        *files, f"--rootdir={root}", f"--basetemp={root / 'tmp'}", "--hypothesis-seed=0", "-q", "--tb=native",
        "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::pytest.PytestAssertRewriteWarning",
    ]  # fmt: skip


def _limit(name: str, seconds: float, now: Path) -> None:
    """End this process after so many seconds of its own, or ten times as many of anybody's.

    Its own, because other processes may keep this one waiting for longer than any test takes.
    """
    now.write_text(name)
    for timer, number, factor in (
        (signal.ITIMER_PROF, signal.SIGPROF, 1),
        (signal.ITIMER_REAL, signal.SIGALRM, WAITING),
    ):
        signal.signal(number, signal.SIG_DFL)
        signal.setitimer(timer, factor * seconds)


def _hide_from_compilers(*functions: Callable[..., Any]) -> None:
    """Keep `torch.compile` off these: it would look at every one of their millions of calls (730 s for one of 1 s)."""
    if "torch._dynamo" not in sys.modules:
        return
    from torch._dynamo.eval_frame import skip_code

    for function in functions:
        skip_code(function.__code__)


def _forget_results() -> None:
    """Empty caches of results, or a test would not run the lines whose results another test has left there."""
    for name, module in list(sys.modules.items()):
        if name.startswith("narrows."):
            for value in vars(module).values():
                if isinstance(value, CACHED):
                    value.cache_clear()


def _merge(into: Lines, lines: Lines) -> None:
    for file, numbers in lines.items():
        into.setdefault(file, set()).update(numbers)


def _first_line(report: pytest.TestReport | pytest.CollectReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext
    return next((line.strip()[:200] for line in text.splitlines() if line.strip()), "")
