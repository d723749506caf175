"""Times on a CPU. A leaf: imports nothing from narrows."""

from __future__ import annotations

import time
from collections.abc import Callable

Call = Callable[[], object]
Sampler = Callable[[], float]


def cpu_sampler(call: Call) -> Sampler:
    """Return a function that runs `call` once and returns its time in ns."""

    def sample() -> float:
        start = time.perf_counter_ns()
        call()
        return float(time.perf_counter_ns() - start)

    return sample
