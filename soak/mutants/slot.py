"""Copies of the tree, each with a server that runs tests in it, and the tasks that they share."""

from __future__ import annotations

import compileall
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Task = dict[str, Any]
COPIED = ("src", "tests", "soak", "pyproject.toml")
PRELOADED = ("torch", "torch._dynamo", "pytest", "hypothesis", "safetensors.torch", "triton")
# On a CPU, one thread each, and nothing compiled that is not looked at: a mutant may have the size and second of
# the file it stands for.
SURROUNDINGS = {
    "CUDA_VISIBLE_DEVICES": "",
    "TRITON_INTERPRET": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Slot:
    """One copy and its server."""

    def __init__(self, tree: Path, preloaded: Sequence[str]) -> None:
        """Start the server in a copy that is there."""
        self._tree = tree
        self._log = (tree / "server.txt").open("wb")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "soak.mutants.server", *preloaded],
            cwd=tree,
            env=os.environ | SURROUNDINGS | {"PYTHONPATH": str(tree / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def answer(self, task: Task, planted: Mapping[str, str]) -> Task:
        """Return the server's answer with these files in the place of their own.

        Raises:
            RuntimeError: the task could not be done.
        """
        with self._planted(planted):
            line = self._asked(json.dumps(task))
        if not line:
            raise RuntimeError(
                f"the server ended with {self._server.wait()}: {(self._tree / 'server.txt').read_text()}"
            )
        found: Task = json.loads(line)
        if found.get("outcome") == "error":
            raise RuntimeError(f"the tests could not be run: {found['why']}")
        return found

    def _asked(self, task: str) -> str:
        """Return the server's line; "" where it has ended."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with suppress(BrokenPipeError):
            print(task, file=self._server.stdin, flush=True)
            return self._server.stdout.readline()
        return ""

    def end(self) -> None:
        """End the server."""
        self._server.kill()  # it holds nothing, and would take seconds to unload PyTorch
        with suppress(BrokenPipeError), self._server:  # closes its pipes, whatever they hold
            pass
        self._log.close()

    @contextmanager
    def _planted(self, files: Mapping[str, str]) -> Iterator[None]:
        own = {name: (self._tree / name).read_bytes() for name in files}
        try:
            for name, text in files.items():
                (self._tree / name).write_bytes(text.encode())
            yield
        finally:
            for name, content in own.items():
                (self._tree / name).write_bytes(content)


class Pool:
    """Slots that work at the same time.

    Attributes:
        tree: a copy that stays as it is while others change the tree that it was made of.
    """

    def __init__(self, tree: Path, slots: Sequence[Slot]) -> None:
        """Take the copy and slots."""
        self.tree = tree
        self._slots = slots
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)

    def answers(self, tasks: Sequence[tuple[Task, Mapping[str, str]]]) -> Iterator[tuple[int, Task]]:
        """Yield index and answer of every task with the files planted for it, as they come."""
        threads = ThreadPoolExecutor(len(self._slots))
        places = {threads.submit(self._answer, *task): index for index, task in enumerate(tasks)}
        try:
            for future in as_completed(places):
                yield places[future], future.result()
        except (KeyboardInterrupt, GeneratorExit):
            self.end()  # or a thread would wait for its server's answer
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def end(self) -> None:
        """End all servers."""
        for slot in self._slots:
            slot.end()

    def _answer(self, task: Task, planted: Mapping[str, str]) -> Task:
        slot = self._free.get()
        try:
            return slot.answer(task, planted)
        finally:
            self._free.put(slot)


@contextmanager
def pool(root: Path, jobs: int, *, preloaded: Sequence[str] = PRELOADED) -> Iterator[Pool]:
    """Give slots with copies of the tree at `root`, which itself is not touched.

    Args:
        preloaded: modules that the servers import before they fork, where they are there.
    """
    with tempfile.TemporaryDirectory(prefix="narrows-mutants-") as folder:
        tree = Path(folder).resolve() / "tree"
        _copy(root, tree)
        trees = [shutil.copytree(tree, tree.with_name(str(n))) for n in range(jobs)]
        made = Pool(tree, [Slot(tree, preloaded) for tree in trees])
        try:
            yield made
        finally:
            made.end()


def _copy(root: Path, tree: Path) -> None:
    tree.mkdir()
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, tree / name)
    compileall.compile_dir(tree / "src", quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
