"""The best FLOPs a second of a dtype's matmul over shapes that a dense or a thin chain meets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from narrows._machine._stopwatch import Stopwatch, Work

if TYPE_CHECKING:
    from collections.abc import Iterator

    Shape = tuple[int, int, int]
    Layout = Literal["out-in", "in-out"]

# (M, K, N). A thin row may be faster than any square one, and no row may exceed the ceiling.
THIN_SHAPES: tuple[Shape, ...] = ((1024, 4096, 128), (2048, 128, 2048), (4096, 4096, 128))
CPU_SHAPES: tuple[Shape, ...] = ((256,) * 3, (512,) * 3, (1024,) * 3, *THIN_SHAPES, (2048,) * 3, (4096,) * 3)
GPU_SHAPES: tuple[Shape, ...] = ((1024,) * 3, *THIN_SHAPES, (2048,) * 3, (4096,) * 3, (4096, 4096, 16384), (8192,) * 3)
PROBE: Shape = (256, 256, 256)  # 34 MFLOP: 0.1 s at the 0.3 GFLOP/s of an emulated float16
LAYOUTS: tuple[Layout, ...] = ("out-in", "in-out")
PATTERN = 1 << 20  # random values before they repeat; drawing 16 M of them takes 0.2 s on one core


class MatmulRate(NamedTuple):
    """FLOPs a second and the (M, K, N) that reached it."""

    flops_per_s: float
    shape: Shape


def flops(shape: Shape) -> int:
    """Return 2 M K N."""
    return 2 * shape[0] * shape[1] * shape[2]


def _operand(rows: int, columns: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    """Return normal random values: zeros would draw less power and let a GPU clock higher."""
    size = rows * columns
    generator = torch.Generator().manual_seed(rows * 8191 + columns)
    pattern = torch.randn(min(size, PATTERN), generator=generator).to(device=device, dtype=dtype)
    return pattern.repeat(-(-size // len(pattern)))[:size].view(rows, columns)


def work(shape: Shape, layout: Layout, dtype: torch.dtype, device: str) -> Work:
    """Return x W^T ("out-in") or x B ("in-out") into a reused output: the chains use both."""
    M, K, N = shape
    x = _operand(M, K, dtype, device)
    right = _operand(N, K, dtype, device).t() if layout == "out-in" else _operand(K, N, dtype, device)
    out = torch.empty(M, N, dtype=dtype, device=device)
    return Work(lambda: torch.mm(x, right, out=out), flops(shape))


def _affordable(
    stopwatch: Stopwatch, dtype: torch.dtype, layout: Layout, seconds: float
) -> Iterator[tuple[Shape, Work, float]]:
    """Give (shape, work, first rate), smallest shape first, while the next one fits the time.

    The slowest rate so far foretells the next: an emulated float16 does 20 GFLOP/s in one layout
    and 0.6 in the other, and gets slower with size.
    """
    is_cpu = stopwatch.device == "cpu"
    # Once to warm up and once timed, here and in the last round; a graph is 3 + 2 x 10 calls.
    calls = 4 if is_cpu else 50
    slowest = 0.0
    for shape in sorted(CPU_SHAPES if is_cpu else GPU_SHAPES, key=flops):
        if slowest and calls * flops(shape) / slowest > seconds:
            return
        candidate = work(shape, layout, dtype, stopwatch.device)
        rate = stopwatch.best([candidate], seconds=0).per_s
        seconds -= calls * flops(shape) / rate
        slowest = min(slowest, rate) if slowest else rate
        yield shape, candidate, rate


def best_matmul(stopwatch: Stopwatch, dtype: torch.dtype, *, seconds: float) -> MatmulRate:
    """Return the best rate over shapes, layouts and thread counts in about `seconds`."""
    # One thread could win only on the smallest shape; elsewhere it would only cost time.
    first = stopwatch.best([work(PROBE, each, dtype, stopwatch.device) for each in LAYOUTS], seconds=seconds / 10)
    threaded = Stopwatch(stopwatch.device, stopwatch.sampler, stopwatch.threads[-1:])
    found = [each for layout in LAYOUTS for each in _affordable(threaded, dtype, layout, seconds / 4)]
    # A shape far below the best will not become it.
    likely = [each for each in found if each[2] > max(rate for _, _, rate in found) / 2]
    rate = threaded.best([candidate for _, candidate, _ in likely], seconds=seconds / 2)
    rates = [MatmulRate(first.per_s, PROBE), *(MatmulRate(each[2], each[0]) for each in found)]
    return max(*rates, MatmulRate(rate.per_s, likely[rate.position][0]))
