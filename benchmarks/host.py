# ruff: noqa: D400 (the first line is the whole question)
"""How long does the host work on one eager call of narrows.bilinear and narrows.linear, and on which part of it?

With a CUDA device: true calls. "host" is the time until a call returns, its launches enqueued and not waited for;
"call" is the time of one in a row of calls until the device has done them all, whichever of the two is slower.
Without one: the host's own part, on this CPU and of this CPU. What asks for a device is told that there is one, a
launch is a call into libc, and matmuls are so small (16 tokens, width 64, rank 16) that calling them is nearly all.
Sides take turns; each figure is the least of many samples, since everything that disturbs a sample makes it longer.

    python benchmarks/host.py build/host.json
    python benchmarks/host.py - --tokens 64,512,4096,8192 --rank 64 --seconds 20
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from _gpu import command, numbers, save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from narrows import Factors

TOKENS, RANK, WIDTH = (64, 128, 256, 512, 1024, 2048, 4096, 8192), 64, 4096
SMALL_TOKENS, SMALL_RANK, SMALL_WIDTH = (16,), 16, 64
CALLS = 50  # a sample: below 1,024 launches, at which the driver's queue makes the host wait
FEWEST_SAMPLES, MOST_SAMPLES = 20, 400
READY = 4  # calls after which one is ready


@dataclass
class Side:
    """One thing to time.

    Attributes:
        name: what it is.
        call: runs it once.
        host_us, call_us: least time until a call returns, and of one in a row of calls until all are done.
    """

    name: str
    call: Callable[[], object]
    host_us: float = field(default=float("inf"))
    call_us: float = field(default=float("inf"))


def main() -> int:
    """Measure, print, record."""
    arguments = parse()
    is_cuda = torch.cuda.is_available()
    began, rows = time.perf_counter(), []
    share = arguments.seconds / len(arguments.tokens)
    with torch.inference_mode(), device(is_cuda=is_cuda):
        for tokens in arguments.tokens:
            sides = sides_of(tokens, arguments.rank, arguments.width, is_cuda=is_cuda)
            take_turns(sides, seconds=share, is_cuda=is_cuda)
            rows += [row_of(side, tokens, arguments.rank, is_cuda=is_cuda) for side in sides]
            show(rows[-len(sides) :])
    save(arguments.output, record(rows, arguments, began, is_cuda=is_cuda))
    return 0


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    is_cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", help="a JSON file, or - for none")
    parser.add_argument("--tokens", type=numbers, default=TOKENS if is_cuda else SMALL_TOKENS)
    parser.add_argument("--rank", type=int, default=RANK if is_cuda else SMALL_RANK)
    parser.add_argument("--width", type=int, default=WIDTH if is_cuda else SMALL_WIDTH)
    parser.add_argument("--seconds", type=float, default=30.0, help="for all lengths together (default 30)")
    return parser.parse_args(argv)


@contextlib.contextmanager
def device(*, is_cuda: bool) -> Iterator[None]:
    """Let the calls run where there is a device, or pretend that there is one."""
    if is_cuda:
        yield
        return
    from _host_stand_in import pretended_device

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pretended_device():
        yield
    torch.set_num_threads(before)


def sides_of(tokens: int, rank: int, width: int, *, is_cuda: bool) -> list[Side]:
    """Return everything that is timed at one length."""
    from narrows import Factors

    dtype, place = (torch.bfloat16, "cuda") if is_cuda else (torch.float32, "cpu")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=place).to(dtype)

    x, bias = normal(tokens, width), normal(width)
    factors = Factors(normal(rank, width).div_(width**0.5), normal(rank, width).div_(width**0.5))
    weight = normal(width, width).div_(width**0.5)
    return [
        *bilinear_sides(x, factors.interleaved(), weight),
        *linear_sides(x, factors, bias, weight),
        *replayed_sides(x, factors.interleaved(), is_cuda=is_cuda),
    ]


def bilinear_sides(x: Tensor, factors: Factors, weight: Tensor) -> list[Side]:
    """Return the public call where own kernels and where cuBLAS runs it, and the same matmuls by hand."""
    import narrows
    import narrows.ops  # registers the operations
    from narrows.kernels import BILINEAR_TWO

    a, b, pair = factors.a, factors.b, factors.pair
    assert pair is not None
    tokens, rank, rows = x.shape[0], factors.rank, pair.view(2 * factors.rank, -1)

    def by_hand() -> Tensor:
        both = torch.mm(rows, x.t())
        p = both.as_strided((tokens, rank), (1, 2 * tokens))
        return torch.mm(p, both.as_strided((rank, tokens), (2 * tokens, 1), tokens))

    operation = torch.ops.narrows.bilinear.default
    return [
        Side("bilinear auto", ready(lambda: narrows.bilinear(x, factors))),
        Side("bilinear two", ready(lambda: narrows.bilinear(x, factors, impl="two"))),
        Side("bilinear two, operation", lambda: operation(x, a, b, None, None, None, None, False, "two")),
        Side("bilinear two, BilinearTwo.run", lambda: BILINEAR_TWO.run(x, factors)),
        Side("bilinear two, by hand", by_hand),
        Side("bilinear dense", lambda: torch.mm(torch.mm(x, weight), x.t())),
    ]


def linear_sides(x: Tensor, factors: Factors, bias: Tensor, weight: Tensor) -> list[Side]:
    """Return the public call and the same matmuls by hand."""
    import narrows

    a, b = factors.a, factors.b
    operation = torch.ops.narrows.linear.default
    return [
        Side("linear auto", ready(lambda: narrows.linear(x, factors))),
        Side("linear two", ready(lambda: narrows.linear(x, factors, impl="two"))),
        Side("linear two, bias", ready(lambda: narrows.linear(x, factors, bias, impl="two"))),
        Side("linear two, operation", lambda: operation(x, a, b, None, None, None, None, "two")),
        Side("linear two, by hand", lambda: torch.mm(torch.nn.functional.linear(x, a), b)),
        Side("linear dense", lambda: torch.nn.functional.linear(x, weight)),
    ]


def replayed_sides(x: Tensor, factors: Factors, *, is_cuda: bool) -> list[Side]:
    """Return the call that replays own kernels, and its parts."""
    import narrows
    from narrows.ops import _bilinear, _ready

    impl = "triton" if is_cuda else "auto"
    if is_cuda:
        call = ready(lambda: narrows.bilinear(x, factors, impl=impl))
    else:
        from _host_stand_in import own_chain

        x, factors = x.bfloat16(), factors.to(torch.bfloat16).interleaved()
        with patch.object(_bilinear, "_prepare", own_chain()):
            call = ready(lambda: narrows.bilinear(x, factors, impl=impl))
    given = (x, factors.a, factors.b)
    name = ("bilinear", impl, None, None, False, True, True)
    where = _ready._where(name, given)  # noqa: SLF001
    found = next((each for each in _ready._ready.get(where, ()) if each.fits(*given)), None)  # noqa: SLF001
    sides = [Side("bilinear triton", call)]
    if found is None:
        return sides  # more intermediates than a replay has room for
    return [
        *sides,
        Side("part: where", lambda: _ready._where(name, given)),  # noqa: SLF001
        Side("part: fits", lambda: found.fits(*given)),
        Side("part: watched", _ready._is_watched),  # noqa: SLF001
        Side("part: replay", lambda: found.run(*given)),
    ]


def ready(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return a call that was made often enough to be ready."""
    for _ in range(READY):
        call()
    return call


def take_turns(sides: Sequence[Side], *, seconds: float, is_cuda: bool) -> None:
    """Sample every side once a round, until the time is over; keeps the least of each."""
    end = time.perf_counter() + seconds
    for number in range(MOST_SAMPLES):
        if number >= FEWEST_SAMPLES and time.perf_counter() > end:
            break
        for side in sides if number % 2 == 0 else reversed(sides):
            sample(side, is_cuda=is_cuda)


def sample(side: Side, *, is_cuda: bool) -> None:
    """Time one row of calls."""
    call = side.call
    call()
    if is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter_ns()
    for _ in range(CALLS):
        call()
    returned = time.perf_counter_ns()
    if is_cuda:
        torch.cuda.synchronize()
    done = time.perf_counter_ns()
    side.host_us = min(side.host_us, (returned - began) / CALLS / 1e3)
    side.call_us = min(side.call_us, (done - began) / CALLS / 1e3)


def row_of(side: Side, tokens: int, rank: int, *, is_cuda: bool) -> dict[str, Any]:
    """Return a side's row; without a device only the host's time means anything."""
    row = {"tokens": tokens, "rank": rank, "side": side.name, "host_us": round(side.host_us, 3)}
    return {**row, "call_us": round(side.call_us, 3)} if is_cuda else row


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of one length."""
    print(f"\n{rows[0]['tokens']} tokens, rank {rows[0]['rank']}" + f"{'host us':>24}{'call us':>10}")
    for row in rows:
        call = f"{row['call_us']:10.2f}" if "call_us" in row else ""
        print(f"{row['side']:<36}{row['host_us']:10.2f}{call}")


def record(
    rows: Sequence[dict[str, Any]], arguments: argparse.Namespace, began: float, *, is_cuda: bool
) -> dict[str, object]:
    """Return what is written down."""
    import narrows

    return {
        "question": (__doc__ or "").splitlines()[0],
        "command": command(),
        "machine": asdict(narrows.machine("cuda" if is_cuda else "cpu")),
        "is_pretended": not is_cuda,
        "width": arguments.width,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": narrows.__version__,
        "seconds": round(time.perf_counter() - began, 1),
        "rows": list(rows),
    }


if __name__ == "__main__":
    sys.exit(main())
