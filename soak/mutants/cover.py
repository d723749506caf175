"""Which tests run which lines, and how long each test takes: found once, kept until a source or a test changes."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from narrows._files import write_text_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from soak.mutants.slot import Pool, Task
    from soak.mutants.source import Mutant

GRACE_S = 3.0  # of CPU time, which every test may take
SLOWER = 10.0  # times what it took before is what a test may take in CPU time: an endless loop takes longer


@dataclass(frozen=True)
class Cover:
    """What tests run.

    Attributes:
        tests: of those that pass: name -> {"seconds": s, "lines": {file: [line, ...]}}.
        failing: tests that fail without a mutant, and why: they are not used.
    """

    tests: dict[str, dict[str, Any]]
    failing: dict[str, str]

    def of(self, mutant: Mutant) -> dict[str, float]:
        """Return the tests for a mutant, with their limits in seconds, in the order in which they should run.

        First those that run its lines, the fastest first; then the others of the same files, which may depend on
        what an earlier test left behind. Where no test is seen to run its lines, as under `torch.compile`, those
        that run anything of its file.
        """
        running = self._running(mutant.file, mutant.lines) or self._running(mutant.file, None)
        files = {_file(name) for name in running}
        others = [name for name in self.tests if _file(name) in files and name not in running]
        return self._limits_s([*self._fastest(running), *self._fastest(others)])

    def within(self, files: tuple[str, ...], left_out: tuple[str, ...]) -> dict[str, float]:
        """Return the tests of some files, with their limits in seconds, the fastest first.

        Args:
            left_out: words of names that are left out.
        """
        names = [name for name in self.tests if name.startswith(files) and not any(word in name for word in left_out)]
        return self._limits_s(self._fastest(names))

    def _limits_s(self, names: Iterable[str]) -> dict[str, float]:
        return {name: GRACE_S + SLOWER * self.tests[name]["seconds"] for name in names}

    def _running(self, file: str, lines: tuple[int, int] | None) -> list[str]:
        """Return the tests that run any of these lines of a file; None: any of its functions."""
        first, last = lines or (0, sys.maxsize)
        return [
            name
            for name, test in self.tests.items()
            if any(first <= line <= last for line in test["lines"].get(file, ()))
        ]

    def _fastest(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=lambda name: (self.tests[name]["seconds"], name))


def cover(pool: Pool, files: Sequence[str], kept: Path | None, *, timed: Sequence[str] = ()) -> Cover:
    """Return what the tests in some files run of src/narrows.

    Args:
        timed: more files, whose tests are timed and not traced: Triton's interpreter would take twice as long.
        kept: file that holds what was found, with the state of the tree that it belongs to; None: nothing is kept.
    """
    asked = " ".join([state(pool.tree), *files, *timed])
    if kept is not None and kept.exists() and (held := json.loads(kept.read_text()))["asked"] == asked:
        return Cover(held["tests"], held["failing"])
    tasks: list[tuple[Task, dict[str, str]]] = [
        ({"do": "cover", "files": [file], "folder": "" if file in timed else "src/narrows"}, {})
        for file in (*timed, *files)
    ]
    found = Cover({}, {})
    for _, answer in pool.answers(tasks):
        found.tests.update(answer["tests"])
        found.failing.update(answer["failing"])
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(kept, json.dumps({"asked": asked, "tests": found.tests, "failing": found.failing}))
    return found


def state(root: Path) -> str:
    """Return a digest of all sources and tests."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in ("src", "tests") for path in (root / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _file(test: str) -> str:
    return test.split("::", maxsplit=1)[0]
