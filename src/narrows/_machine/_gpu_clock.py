"""Times on a CUDA device: CUDA graphs hide the host, events read the device's own clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from narrows._machine._clock import Call, Sampler

CALLS_PER_GRAPH = 10
WARM_UP_CALLS = 3  # what torch asks for before a capture: libraries choose and allocate
EAGER_CALLS = 1000
EAGER_REPEATS = 10


def graph_sampler(call: Call, device: str) -> Sampler:
    """Return a function that replays a graph of `call` and returns the ns of one call on the device.

    Args:
        call: launches work on the current stream; its tensors must outlive the sampler.
        device: "cuda:0".
    """
    with torch.cuda.device(device):
        graph = _capture(call)

    def sample() -> float:
        with torch.cuda.device(device):
            return _elapsed_ns(graph.replay) / CALLS_PER_GRAPH

    return sample


def _capture(call: Call) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_CALLS):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS_PER_GRAPH):
            call()
    return graph


def _elapsed_ns(launch: Call) -> float:
    """Device time between two events around `launch`."""
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    launch()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e6


def eager_launch_ns(call: Call, device: str) -> float:
    """Return the least time of one eager launch in a row of them, host and device overlapping."""

    def many() -> None:
        for _ in range(EAGER_CALLS):
            call()

    with torch.cuda.device(device):
        many()
        return min(_elapsed_ns(many) for _ in range(EAGER_REPEATS)) / EAGER_CALLS
