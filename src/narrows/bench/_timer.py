"""Time of one call: a host clock on a CPU, events around a loop or a replayed graph on a GPU.

Runs in the child process.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from narrows._values import Mode

SAMPLE_NS = 5e6  # 5 ms: long against the clock (0.1 us)
BLOCKS = 5  # a sample is the median of up to 5 blocks: a stall of 8 to 72 ms sits in one of them, not in the sample
SETTLE_NS = 250e6  # a call this long overwrites any cache many times before it ends: a warm-up call changes nothing
GRAPH_CALLS = 20  # calls in one graph at least, so that launching the graph itself is shared by many
MAX_CALLS = 4096


class Ring:
    """Calls in rotation. With several, each one's result lives until its turn comes again.

    One call: hot. Several, each with operands of its own: cold, and their results are then
    different memory too.
    """

    def __init__(self, calls: Sequence[Callable[[], torch.Tensor]]) -> None:
        self.calls = calls
        self.results: list[torch.Tensor | None] = [None] * len(calls)
        self._next = 0

    def __len__(self) -> int:
        return len(self.calls)

    def turn(self) -> torch.Tensor:
        """Run the next call and return its result."""
        index = self._next
        self._next = (index + 1) % len(self.calls)
        result = self.calls[index]()
        if len(self.calls) > 1:
            self.results[index] = result
        return result

    def run(self, count: int) -> None:
        calls, results, size = self.calls, self.results, len(self.calls)
        if size == 1:
            call = calls[0]
            for _ in range(count):
                call()
            return
        # Goes on where the last run ended: starting at the first one again would find it hot.
        for index in range(self._next, self._next + count):
            results[index % size] = calls[index % size]()
        self._next = (self._next + count) % size


class Timer(Protocol):
    """Times one row, again and again."""

    def sample(self) -> tuple[float, int]:
        """Return (nanoseconds a call, calls in this sample)."""
        ...

    def output(self) -> torch.Tensor:
        """Return the result of one run of what is timed, for checking."""
        ...


class HostTimer:
    """Wall time of calls in turn on a CPU."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._fastest_ns = math.inf

    def output(self) -> torch.Tensor:
        return self._ring.turn()

    def _run(self, count: int) -> float:
        start = time.perf_counter_ns()
        self._ring.run(count)
        return (time.perf_counter_ns() - start) / count

    def sample(self) -> tuple[float, int]:
        if self._fastest_ns == math.inf:
            self._fastest_ns = self._run(1)
        if self._fastest_ns < SETTLE_NS:
            self._run(1)
        blocks = max(1, min(BLOCKS, math.ceil(SAMPLE_NS / self._fastest_ns)))
        calls = max(1, min(MAX_CALLS, math.ceil(SAMPLE_NS / BLOCKS / self._fastest_ns)))
        times = [self._run(calls) for _ in range(blocks)]
        self._fastest_ns = min(self._fastest_ns, *times)
        return statistics.median(times), blocks * calls


class _DeviceTimer:
    """Two CUDA events around something that launches `count` calls."""

    def __init__(self, device: torch.device, count: int) -> None:
        self._device, self._count = device, count

    def _launch(self) -> None:
        raise NotImplementedError

    def _settle(self) -> None:
        raise NotImplementedError

    def sample(self) -> tuple[float, int]:
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._settle()
        torch.cuda.synchronize(self._device)
        start.record()
        self._launch()
        end.record()
        torch.cuda.synchronize(self._device)
        return float(start.elapsed_time(end)) * 1e6 / self._count, self._count


class EventTimer(_DeviceTimer):
    """A host-launched loop: throughput a call, launches included."""

    def __init__(self, ring: Ring, device: torch.device) -> None:
        super().__init__(device, max(GRAPH_CALLS, len(ring)))
        self._ring = ring

    def output(self) -> torch.Tensor:
        result = self._ring.turn()
        torch.cuda.synchronize(self._device)
        return result

    def _settle(self) -> None:
        self._ring.run(min(3, len(self._ring)))

    def _launch(self) -> None:
        self._ring.run(self._count)


class GraphTimer(_DeviceTimer):
    """A captured CUDA graph that holds every call of the ring once (a single one: 20 times)."""

    def __init__(self, ring: Ring, device: torch.device) -> None:
        super().__init__(device, len(ring) if len(ring) > 1 else GRAPH_CALLS)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(2):
                ring.turn()
        torch.cuda.current_stream(device).wait_stream(stream)
        self._ring = ring
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._result = ring.turn()
            ring.run(self._count - 1)

    def output(self) -> torch.Tensor:
        self._result.fill_(math.nan)
        self._graph.replay()
        torch.cuda.synchronize(self._device)
        return self._result

    def _settle(self) -> None:
        self._graph.replay()

    def _launch(self) -> None:
        self._graph.replay()


def make_timer(ring: Ring, *, mode: Mode, device: torch.device) -> Timer:
    """Return the timer of a mode on a device."""
    if device.type == "cpu":
        return HostTimer(ring)
    return GraphTimer(ring, device) if mode == "graph" else EventTimer(ring, device)
