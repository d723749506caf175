"""Where a benchmark runs: its device, the ceilings, and how calls are timed. Tests put a CPU and a fake timer here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from _gpu import cold_bytes, num_calls
from _race import Captured, HostLaunched

if TYPE_CHECKING:
    from collections.abc import Callable

    from _race import Call, Timed
    from narrows._values import Ceilings


@dataclass(frozen=True)
class Setting:
    """Attributes:
    device: "cuda" or "cpu".
    name: what the device is called.
    dtype: of every operand.
    ceilings: of the device.
    graph, eager: from (call, count) to what is timed.
    cold: bytes that operands and results rotate over.
    clock: seconds.
    """

    device: str
    name: str
    dtype: str
    ceilings: Ceilings
    graph: Callable[[Call, int], Timed]
    eager: Callable[[Call, int], Timed]
    cold: int
    clock: Callable[[], float] = time.perf_counter

    def calls(self, rotated_bytes: int) -> int:
        """Return how many calls rotate over the cold bytes, each with so many of its own."""
        return num_calls(rotated_bytes, self.cold)


def this_gpu(*, dtype: str = "bfloat16", seconds: float = 4.0) -> Setting:
    """Return the current CUDA device with ceilings measured now, in about `seconds`."""
    from narrows._machine import ceilings, machine

    found = ceilings("cuda", dtype, seconds=seconds)
    cold = cold_bytes(found.last_level_cache_bytes)
    return Setting("cuda", machine("cuda").name, dtype, found, Captured, HostLaunched, cold)
