"""Processes that have imported everything once and fork a child for every run."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from soak.crashes.cycle import CASES, killed_at_call, killed_at_moment, report_made, whole_run
from soak.crashes.full import bound_bytes, full_from_call, on_small_disk
from soak.crashes.models import make_base
from soak.crashes.writers import WRITERS, order_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from soak.crashes.cycle import Cycle, Whole

IMPORTED = (
    "transformers.models.llama.modeling_llama",
    "transformers.models.llama.tokenization_llama",
    "narrows.bench",
    "narrows.models",
    "narrows.reporting",
    *(f"narrows.cli.{verb}" for verb in ("measure", "compress", "show", "tune")),
)

BASE = "base"


class Pool:
    """Runs cycles in `jobs` processes; a context manager.

    Args:
        place: an empty folder.
        jobs: processes.
    """

    def __init__(self, place: Path, jobs: int) -> None:
        self.base = place / BASE
        self.jobs = jobs
        self._executor = ProcessPoolExecutor(
            jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_ready, initargs=(place,)
        )

    def __enter__(self) -> Self:
        self._executor.submit(report_made, self.base).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()

    def wholes(self) -> dict[str, Whole]:
        """Return what an undisturbed run of every case does."""
        return dict(zip(CASES, self._executor.map(partial(whole_run, base=self.base), CASES), strict=True))

    def orders(self) -> dict[str, tuple[str, ...]]:
        """Return for every writer what it called kept before it was on the disk."""
        found = self._executor.map(partial(_order, base=self.base), WRITERS)
        return dict(zip(WRITERS, found, strict=True))

    def kills(self, kind: str, name: str, whole: Whole, seeds: Iterable[str]) -> list[Cycle]:
        """Return how runs of a case went that were killed at a "call" or a "moment", one for each seed."""
        one: Callable[..., Cycle] = killed_at_call if kind == "call" else killed_at_moment
        return list(self._executor.map(partial(one, name, self.base, whole), seeds))

    def full(self, name: str, whole: Whole, positions: Iterable[int]) -> list[Cycle]:
        """Return how runs of a case went whose disk was full from a call on, one for each position."""
        return list(self._executor.map(partial(full_from_call, name, self.base, whole), positions))

    def disks(self, name: str, whole: Whole, sizes: Iterable[int]) -> list[Cycle | None]:
        """Return how runs of a case went on disks with so little room."""
        return list(self._executor.map(partial(on_small_disk, name, self.base, whole), sizes))

    def canary(self, check: Callable[[str, Path], tuple[str, ...]], which: str) -> tuple[str, ...]:
        """Return what a check finds in something that is wrong on purpose."""
        return self._executor.submit(check, which, self.base).result()

    def bound(self, name: str, whole: Whole) -> int:
        """Return more bytes than a run of a case needs."""
        return self._executor.submit(bound_bytes, name, self.base, whole).result()


def _order(name: str, base: Path) -> tuple[str, ...]:
    return order_faults(WRITERS[name], base)


def _ready(place: Path) -> None:
    """Import everything, with one thread: a process whose torch has more cannot be forked."""
    from narrows.cli._steps import quiet_libraries

    quiet_libraries()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.update({f"XDG_{one}_HOME": str(place / one.lower()) for one in ("CACHE", "DATA", "STATE")})
    os.environ.pop("TRITON_INTERPRET", None)  # nobody measures an interpreter
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    for name in IMPORTED:
        importlib.import_module(name)
    _warm_up(place)


def _warm_up(place: Path) -> None:
    """Make what all runs read, or the same for nobody: what is imported late and compiled once, no child does again."""
    try:
        (place / BASE).mkdir()
    except FileExistsError:  # another process makes it
        with tempfile.TemporaryDirectory() as folder:
            make_base(Path(folder))
    else:
        make_base(place / BASE)
