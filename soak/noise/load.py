"""A process that keeps one core busy half of the time: `python -m soak.noise.load CORE SEED`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator

MEAN_SECONDS = 0.25  # of a busy stretch and of a pause; drawn, so that they keep no step with rounds of 10 ms
LEAST_SHARE = 0.2  # of a core: what is measured may take a part of the busy half, other processes may not take most


@dataclass(slots=True)
class Load:
    """What a load took: filled in when it ends.

    Attributes:
        share: of one core, over its life.
    """

    share: float = 0.0

    @property
    def is_real(self) -> bool:
        """The load in fact got its core for much of the half of the time in which it asks for it."""
        return self.share >= LEAST_SHARE


def cores() -> list[int]:
    """Return the cores that this process may run on; they are counted where they cannot be asked for."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextmanager
def load(seed: int) -> Iterator[Load]:
    """Keep the last core busy half of the time while the block runs."""
    words = [sys.executable, "-m", "soak.noise.load", str(cores()[-1]), str(seed)]
    process = subprocess.Popen(words)
    found, began = Load(), time.monotonic()
    try:
        yield found
        times = psutil.Process(process.pid).cpu_times()
        found.share = (times.user + times.system) / (time.monotonic() - began)
    finally:
        process.kill()
        process.wait()


def keep_busy(core: int, seed: int) -> None:
    """Alternate busy stretches and pauses of drawn lengths until killed, or until the parent is gone."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    drawn, parent = random.Random(seed), os.getppid()  # noqa: S311 (a load, not a secret)
    while os.getppid() == parent:
        end = time.monotonic() + drawn.expovariate(1 / MEAN_SECONDS)
        while time.monotonic() < end:
            pass
        time.sleep(drawn.expovariate(1 / MEAN_SECONDS))


if __name__ == "__main__":
    keep_busy(int(sys.argv[1]), int(sys.argv[2]))
