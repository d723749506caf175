"""The best rate of several ways to do one work: round-robin, the smallest time of each counts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from narrows._machine._clock import cpu_sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from narrows._machine._clock import Call, Sampler


class Work(NamedTuple):
    """Something to time: `amount` is what one `call` does (bytes, FLOPs, launches)."""

    call: Call
    amount: float


class Rate(NamedTuple):
    """The best of several works: amount a second, and which of them it was."""

    per_s: float
    position: int


@dataclass(frozen=True)
class Stopwatch:
    """Times work on one device.

    Attributes:
        device: "cpu" or "cuda:0".
        sampler: from a call to a function that returns the ns one call took.
        threads: counts of CPU threads to try.
    """

    device: str
    sampler: Callable[[Call], Sampler]
    threads: tuple[int, ...]

    def best(self, works: Sequence[Work], *, seconds: float, overhead_ns: float = 0.0) -> Rate:
        """Return the best rate over works and thread counts.

        Args:
            works: at least one.
            seconds: time to spend; every work runs at least twice, once to warm up.
            overhead_ns: subtracted from each time, but at most half of it: a launch that the limit
                adds apart.
        """
        samplers = [self.sampler(work.call) for work in works]
        times = [float("inf")] * len(works)
        for _ in self._each_thread_count():
            for sample in samplers:
                sample()
            _fill(times, samplers, seconds / len(self.threads))
        rates = [work.amount * 1e9 / max(t - overhead_ns, t / 2, 1.0) for work, t in zip(works, times, strict=True)]
        top = max(rates)
        return Rate(top, rates.index(top))

    def _each_thread_count(self) -> Iterator[int]:
        import torch

        before = torch.get_num_threads()
        try:
            for threads in self.threads:
                torch.set_num_threads(threads)
                yield threads
        finally:
            torch.set_num_threads(before)


def _fill(times: list[float], samplers: Sequence[Sampler], seconds: float) -> None:
    """Lower each of `times` to the smallest sample, in turns, until the time is over."""
    deadline = time.perf_counter() + seconds
    while True:
        for position, sample in enumerate(samplers):
            times[position] = min(times[position], sample())
        if time.perf_counter() >= deadline:
            return


def stopwatch(device: str) -> Stopwatch:
    """Return the stopwatch of a device ("cpu", "cuda" or "cuda:1").

    Raises:
        DeviceError: the device is not there.
    """
    import torch

    from narrows._machine import _gpu

    if device.startswith("cuda"):
        from narrows._machine._gpu_clock import graph_sampler

        device = f"cuda:{_gpu.index(device)}"
        return Stopwatch(device, lambda call: graph_sampler(call, device), (torch.get_num_threads(),))
    _gpu.check_cpu(device)
    return Stopwatch(device, cpu_sampler, tuple(sorted({1, torch.get_num_threads()})))
