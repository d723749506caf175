"""A CPU in place of the GPU, and a timer that says what a test wants."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from _race import as_tuple
from narrows._values import Ceilings

if TYPE_CHECKING:
    from collections.abc import Iterator

CEILINGS = Ceilings(
    dtype="float32",
    read_bytes_per_s=1e12,
    write_bytes_per_s=1e12,
    hot_read_bytes_per_s=2e12,
    hot_write_bytes_per_s=2e12,
    copy_bytes_per_s=1e12,
    flops_per_s=1e14,
    flops_shape=(64, 64, 64),
    eager_launch_ns=1000.0,
    graph_launch_ns=500.0,
    last_level_cache_bytes=1 << 20,
)


class HostCalls:
    """Calls that run on the CPU; the k-th sample takes `times[k]` nanoseconds."""

    def __init__(self, call, count, times=None):
        self.results, self._call, self._count = [], call, count
        self._times: Iterator[float] = itertools.cycle(times or [1000.0])

    def run(self):
        self.results = [as_tuple(self._call(number)) for number in range(self._count)]

    def sample(self):
        return next(self._times)


@dataclass
class Clock:
    """Seconds that pass only when somebody looks."""

    step: float = 1.0
    now: float = field(default=0.0)

    def __call__(self):
        self.now += self.step
        return self.now


def setting(**changes):
    """Return a CPU in float32 where every sample takes 1 us."""
    from _setting import Setting

    values = {
        "device": "cpu",
        "name": "a CPU",
        "dtype": "float32",
        "ceilings": CEILINGS,
        "graph": HostCalls,
        "eager": HostCalls,
    }
    return Setting(**{**values, "cold": 1, "clock": Clock(), **changes})


def spoiled(run):
    """Return a kernel's `run` with one element far off."""

    def wrong(*args, **kwargs):
        result = run(*args, **kwargs).clone()
        result[0, 0] += 1e3
        return result

    return wrong


def nan_like(tensor):
    return torch.full_like(tensor, math.nan)
