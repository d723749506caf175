"""Do the tests that need a GPU pass on this one? Records how many did, with the machine, for `make gpu`.

python benchmarks/gpu_tests.py build/tests.json
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from _gpu import PACKAGES, TEST_PACKAGES, closing, opening, require_gpu, save

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[1]
MOST_WORKERS = 8  # each holds a CUDA context


class Counter:
    """A pytest plugin that counts outcomes and keeps the names of tests that did not pass."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {"passed": 0, "failed": 0, "skipped": 0}
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one test once: its call, or the phase that kept it from being called."""
        if report.when != "call" and report.passed:
            return
        self.counts[report.outcome] += 1
        if report.failed:
            self.failed.append(report.nodeid)


def verdict(status: int, counts: dict[str, int]) -> str:
    """Return why the tests are no gate that was passed; empty when they are."""
    if status:
        return f"{counts['failed']} failed (pytest exit status {status})"
    return "" if counts["passed"] else "not one GPU test ran"


def in_parallel(workers: int) -> list[str]:
    """Return pytest's arguments for several processes, where pytest-xdist is there: most of the time is compiling."""
    if workers < 2 or importlib.util.find_spec("xdist") is None:
        return []
    # pytest-benchmark, where it is installed, warns that it cannot run beside xdist, and warnings are errors here.
    quiet = ["-p", "no:benchmark"] if importlib.util.find_spec("pytest_benchmark") else []
    return ["-n", str(workers), *quiet]


def main() -> int:
    """Run the tests marked gpu, record, return 1 unless at least one ran and all passed."""
    require_gpu((*PACKAGES, *TEST_PACKAGES))
    import pytest

    output, *rest = sys.argv[1:]
    counter, began = Counter(), time.perf_counter()
    fixed = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    workers = min(MOST_WORKERS, len(os.sched_getaffinity(0)) // 2)
    status = int(pytest.main([*fixed, *in_parallel(workers), *rest], [counter]))
    why = verdict(status, counter.counts)
    found = {"tests": counter.counts, "failed": counter.failed, "passed": not why}
    save(output, opening((__doc__ or "").splitlines()[0]) | found | closing(began))
    print(f"GPU tests: {why}" if why else f"GPU tests: all {counter.counts['passed']} passed")
    return int(bool(why))


if __name__ == "__main__":
    sys.exit(main())
