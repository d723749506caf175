"""A race: several ways to compute one thing, checked against float64, then timed in turns.

Every racer is checked before and after it is timed, each time into memory full of NaN. One that is
wrong has no time. A round takes one sample of each racer, so slow moments fall on all of them.

Letters: K sampled rows.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from narrows._oracle import Reference

    Results = torch.Tensor | tuple[torch.Tensor, ...]
    Call = Callable[[int], Results]

FEWEST_ROUNDS = 12
MOST_ROUNDS = 60
SAMPLE_NS = 2e6  # 2 ms: long against the events' clock (0.5 us) and the start of a graph
WARM_UP_CALLS = 3  # what torch asks for before a capture


class Timed(Protocol):
    """Calls that can be run and timed together."""

    results: list[tuple[torch.Tensor, ...]]

    def run(self) -> None:
        """Run every call once, into NaN-filled memory, and wait for the device."""

    def sample(self) -> float:
        """Return nanoseconds a call."""


@dataclass(frozen=True)
class Expected:
    """What one result of one call must be: sampled rows, their float64 value and derived bound."""

    rows_K: torch.Tensor
    reference: Reference


@dataclass
class Racer:
    """One way to compute.

    Attributes:
        variant: its name in rows.
        rank: None for dense.
        call: from the number of a call to its result; each number has operands of its own.
        count: calls.
        expected: by number of a call, one `Expected` for each of its results.
        limit_ns: least time of one call; None: not stated.
        chosen: what impl="auto" ran, with which sizes; empty for every other.
        status: "ok", or why it has no time: "refused", "failed", "wrong result".
        worst: largest error over its bound.
        samples_ns: one a round.
    """

    variant: str
    rank: int | None
    call: Call
    count: int
    expected: Mapping[int, Sequence[Expected]]
    limit_ns: float | None = None
    chosen: str = ""
    status: str = "ok"
    reason: str = ""
    worst: float | None = None
    samples_ns: list[float] = field(default_factory=list)
    timed: Timed | None = None

    @property
    def key(self) -> tuple[str, int | None]:
        """Variant and rank: what names it among the racers of one point."""
        return (self.variant, self.rank)

    def start(self, prepare: Callable[[Call, int], Timed]) -> None:
        """Prepare what is timed, and check it."""
        try:
            self.timed = prepare(self.call, self.count)
        except Exception as fault:  # noqa: BLE001 (a row that failed is a result; the others go on)
            self.drop("failed", said(fault))
            return
        self.check()

    def check(self) -> None:
        """Run every call into NaN-filled memory; a result that holds a NaN or is not near enough drops this racer."""
        assert self.timed is not None
        try:
            self.timed.run()
            self.worst = max(self.worst or 0.0, worst_of(self.timed.results, self.expected))
        except Exception as fault:  # noqa: BLE001
            self.drop("failed", said(fault))
            return
        if not self.worst <= 1:
            self.drop("wrong result", f"an element is {self.worst:.3g} times its derived bound away from float64")

    def drop(self, status: str, reason: str) -> None:
        """Take the times away and say why."""
        self.status, self.reason, self.timed = status, reason, None
        self.samples_ns.clear()


def said(fault: BaseException) -> str:
    """Return an exception's type and first line."""
    return f"{type(fault).__name__}: {(str(fault).splitlines() or [''])[0]}"


def worst_of(results: Sequence[tuple[torch.Tensor, ...]], expected: Mapping[int, Sequence[Expected]]) -> float:
    """Return the largest error over its bound in the calls that are expected; inf where any result holds a NaN."""
    import torch

    from narrows._oracle import worst

    if bool(torch.stack([tensor.isnan().any() for result in results for tensor in result]).any()):
        return math.inf
    return max(
        worst(tensor.index_select(-2, one.rows_K), one.reference)
        for number, several in expected.items()
        for tensor, one in zip(results[number], several, strict=True)
    )


def race(
    racers: Sequence[Racer],
    prepare: Callable[[Call, int], Timed],
    *,
    end: float = 0.0,
    seconds: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Check, time in turns, check again; fills `samples_ns` and `status` of each racer. At least 12 rounds, at most 60.

    Args:
        prepare: from (call, count) to what is timed.
        end: rounds go on until then, on the clock.
        seconds: and for so long, preparation not counted.
    """
    for racer in racers:
        if racer.status == "ok":
            racer.start(prepare)
    live = [racer for racer in racers if racer.status == "ok"]
    take_rounds(live, end=max(end, clock() + seconds), clock=clock)
    for racer in live:
        racer.check()
        racer.timed = None


def take_rounds(live: Sequence[Racer], *, end: float, clock: Callable[[], float] = time.perf_counter) -> int:
    """Sample every racer once a round, forwards and backwards in turn; return how many rounds there were."""
    num_rounds = 0
    while live and num_rounds < MOST_ROUNDS and (num_rounds < FEWEST_ROUNDS or clock() < end):
        for racer in live if num_rounds % 2 == 0 else reversed(live):
            assert racer.timed is not None
            racer.samples_ns.append(racer.timed.sample())
        num_rounds += 1
    return num_rounds


class Captured:
    """A CUDA graph of `count` calls; what each call returns is kept, so that results are different memory.

    Intermediate tensors are handed out again by the allocator and stay in the cache, as in a model.
    """

    def __init__(self, call: Call, count: int) -> None:
        import torch

        call(0)  # compiles, tunes and checks itself where it must, outside of any capture
        torch.cuda.synchronize()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for number in range(min(WARM_UP_CALLS, count)):
                call(number)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self._graph, self._count, self._replays = torch.cuda.CUDAGraph(), count, 1
        with torch.cuda.graph(self._graph, stream=stream):
            self.results = [as_tuple(call(number)) for number in range(count)]
        self._replays = max(1, math.ceil(SAMPLE_NS / (self.sample() * count)))

    def run(self) -> None:
        import torch

        for result in self.results:
            for tensor in result:
                tensor.fill_(math.nan)
        self._graph.replay()
        torch.cuda.synchronize()

    def sample(self) -> float:
        import torch

        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # The device replays this one while the host enqueues what is timed: no gap at its start.
        self._graph.replay()
        start.record()
        for _ in range(self._replays):
            self._graph.replay()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) * 1e6 / (self._count * self._replays)


class HostLaunched:
    """A loop on the host, timed as bench's `EventTimer` does: throughput a call, launches included."""

    def __init__(self, call: Call, count: int) -> None:
        from functools import partial

        import torch

        from narrows.bench._timer import EventTimer, Ring

        self._ring = Ring([partial(call, number) for number in range(count)])  # type: ignore[misc]
        self._ring.run(count)
        self._timer = EventTimer(self._ring, torch.device("cuda", torch.cuda.current_device()))
        self.results: list[tuple[torch.Tensor, ...]] = []

    def run(self) -> None:
        import torch

        sizes = [torch.empty_like(t, device="meta") for t in as_tuple(self._ring.results[0])]  # type: ignore[arg-type]
        self.results, self._ring.results = [], [None] * len(self._ring)
        for call in self._ring.calls:
            # The allocator hands memory that was just freed to the next tensor of its size: here it is full of NaN.
            spoiled = [torch.full_like(size, math.nan, device="cuda") for size in sizes]
            del spoiled
            self.results.append(as_tuple(call()))
        torch.cuda.synchronize()
        self._ring.results = [result[0] for result in self.results]

    def sample(self) -> float:
        self.results = []
        return self._timer.sample()[0]


def as_tuple(results: Results) -> tuple[torch.Tensor, ...]:
    """Return one result or several as a tuple."""
    return results if isinstance(results, tuple) else (results,)
