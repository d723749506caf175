"""Runs pytest over and over without importing PyTorch each time: one process, in a copy of the tree, forks per run.

It reads tasks from its input, one JSON object a line, and writes an answer a line:

    {"do": "cover", "files": [...], "folder": "src/narrows"}   -> {"tests": {...}, "failing": {...}, ...}
    {"do": "test", "files": [...], "limits_s": {name: s}}       -> {"outcome": "killed", "by": name, "why": text, ...}

Every answer says how many "seconds" it took. An outcome is "killed", "hangs" (a test outlived its limit), "survived"
or "error", which is a fault of this program.

The tree lies in the working folder. narrows is imported in the forked process only, so it sees what the tree holds.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import psutil  # type: ignore[import-untyped]

DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
OUTPUT, ANSWER, NOW = "output.txt", "answer.json", "now.txt"
MORE_BYTES = 4 << 30  # of data that one run may allocate: an endless loop must not take the machine's memory


def main() -> None:
    """Import what is named on the command line, then answer every line of the input."""
    for name in sys.argv[1:]:
        with suppress(ImportError):  # an extra that is not there
            import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        began = time.perf_counter()
        answer = forked(json.loads(line))
        print(json.dumps(answer | {"seconds": round(time.perf_counter() - began, 2)}), file=answers, flush=True)


def forked(task: dict[str, Any]) -> dict[str, Any]:
    """Return a task's answer, or which signal ended the process that worked at it."""
    Path(ANSWER).unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _work(task)
    try:
        _, status = os.waitpid(child, 0)
    finally:
        with suppress(ProcessLookupError):  # what the tests started and left; after Ctrl-C the tests too
            os.killpg(child, signal.SIGKILL)
    if os.WIFSIGNALED(status):
        return _ended(os.WTERMSIG(status))
    if not Path(ANSWER).exists():
        return {"outcome": "error", "why": f"{Path(NOW).read_text()}: the process ended without an answer"}
    return dict(json.loads(Path(ANSWER).read_text()))


def _ended(number: int) -> dict[str, Any]:
    by = Path(NOW).read_text()
    if number in {signal.SIGALRM, signal.SIGPROF}:
        return {"outcome": "hangs", "by": by, "why": "outlived its limit"}
    return {"outcome": "killed", "by": by, "why": f"died of {signal.Signals(number).name}"}


def _work(task: dict[str, Any]) -> NoReturn:
    """Run one task in this process and end it."""
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        _redirect()
        _limit_memory()
        answer = {"cover": _cover, "test": _test}[task["do"]](task)
    except BaseException:  # noqa: BLE001 (reported; a fault of this program must not count as a test that failed)
        answer = {"outcome": "error", "why": traceback.format_exc()}
    Path(ANSWER).write_text(json.dumps(answer))
    os._exit(0)


def _redirect() -> None:
    """Leave the server's input and answers alone."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = psutil.Process().memory_info().data + MORE_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _cover(task: dict[str, Any]) -> dict[str, Any]:
    import pytest

    from soak.mutants.plugins import Traced, options

    root = Path.cwd()
    traced = Traced(root, task["folder"])
    pytest.main(options(task["files"], root), plugins=[traced])
    return traced.found()


def _test(task: dict[str, Any]) -> dict[str, Any]:
    import pytest

    from soak.mutants.plugins import Chosen, options

    root = Path.cwd()
    chosen = Chosen(task["limits_s"], root / NOW)
    status = int(pytest.main([*options(task["files"], root), "-x"], plugins=[chosen]))
    narrows = sys.modules.get("narrows")
    assert narrows is None or str(narrows.__file__).startswith(f"{root}/src/"), f"the tests ran {narrows.__file__}"
    if chosen.failed:
        return {"outcome": "killed", "by": chosen.failed, "why": chosen.why}
    return {"outcome": "error" if status else "survived", "by": "", "why": f"pytest ended with {status}"}


if __name__ == "__main__":
    main()
