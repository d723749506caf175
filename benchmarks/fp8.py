# ruff: noqa: D400 (the first line is the whole question)
"""Does an 8-bit projection win at an equal error, on one GPU?

S = (X A)(X B)^T with X, A and B in float8 (e4m3, one scale a tensor, quantised before timing: the best case) for the
projection, against bfloat16; scores in bfloat16 both times. In a CUDA graph, cold X and S, in turns, ratio with a
99 % interval. Errors against float64 on the operands as they were before any rounding. About 10 seconds.

    python benchmarks/fp8.py build/fp8.json
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import torch

from _gpu import closing, opening, require_gpu, save
from _setting import this_gpu
from narrows._stats import median, paired_ratio
from narrows.bench._timer import Ring, make_timer

if TYPE_CHECKING:
    from torch import Tensor

    from _rows import Row

LENGTHS = (256, 1024, 4096)
RANKS = (64, 256, 1024)
WIDTH = 4096
ROUNDS = 16
COLD_BYTES = 180_000_000


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", help="a JSON file, or - for none")
    arguments = parser.parse_args()
    require_gpu()
    with torch.inference_mode():
        record = opening((__doc__ or "").splitlines()[0], this_gpu(seconds=1.0).ceilings)
        began = time.perf_counter()
        rows = [measure(tokens, rank) for tokens in LENGTHS for rank in RANKS]
    save(arguments.output, record | {"rows": rows} | closing(began))
    for row in rows:
        bf16, fp8, over = row["bfloat16"], row["float8"], row["speedup"]
        print(
            f"{row['tokens']:6d} rank {row['rank']:5d}  bfloat16 {bf16['time_us']:7.2f} us, error {bf16['error']:.2%}"
            f"   float8 {fp8['time_us']:7.2f} us, error {fp8['error']:.2%}"
            f"   {over['value']:.2f}x [{over['low']:.2f}, {over['high']:.2f}]"
        )
    return 0


def measure(tokens: int, rank: int) -> Row:
    """Return one point: times, errors, and the ratio bfloat16 / float8."""
    device = torch.device("cuda")
    count = max(4, -(-COLD_BYTES // (tokens * (WIDTH + tokens) * 2)))
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(tokens, WIDTH, generator=generator, device=device)
    w = torch.randn(2 * rank, WIDTH, generator=generator, device=device) / WIDTH**0.5
    exact = scores(x.double(), w.double())
    outs = [torch.empty(tokens, tokens, dtype=torch.bfloat16, device=device) for _ in range(count)]
    w16 = w.bfloat16()
    x8, x_scale = quantised(x)
    w8, w_scale = quantised(w)
    sets16 = [x.bfloat16().clone() for _ in range(count)]
    sets8 = [x8.clone() for _ in range(count)]

    def in_bf16(i: int) -> Tensor:
        return finish(torch.mm(sets16[i], w16.t()), outs[i])

    def in_fp8(i: int) -> Tensor:
        both = torch._scaled_mm(sets8[i], w8.t(), scale_a=x_scale, scale_b=w_scale, out_dtype=torch.bfloat16)  # noqa: SLF001
        return finish(both, outs[i])

    row: Row = {"tokens": tokens, "rank": rank, "width": WIDTH}
    timers = {}
    for name, call in (("bfloat16", in_bf16), ("float8", in_fp8)):
        error = float((call(0).double() - exact).norm() / exact.norm())
        timers[name] = make_timer(Ring([partial(call, i) for i in range(count)]), mode="graph", device=device)
        row[name] = {"error": error, "samples_ns": []}
    for _ in range(ROUNDS):
        for name, timer in timers.items():
            row[name]["samples_ns"].append(timer.sample()[0])
    for name in timers:
        row[name]["time_us"] = median(row[name]["samples_ns"]) / 1e3
    return row | {"speedup": asdict(paired_ratio(row["bfloat16"]["samples_ns"], row["float8"]["samples_ns"]))}


def scores(x: Tensor, w: Tensor) -> Tensor:
    """Return (x a^T)(x b^T)^T for w = [a; b]."""
    p, q = (x @ w.mT).chunk(2, dim=1)
    return p @ q.mT


def finish(both: Tensor, out: Tensor) -> Tensor:
    """Write the scores of projections side by side into `out`."""
    p, q = both.chunk(2, dim=1)
    return torch.mm(p, q.t(), out=out)


def quantised(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tensor as float8 e4m3 and the factor that undoes its scale: its largest element becomes 448."""
    scale = tensor.abs().max() / torch.finfo(torch.float8_e4m3fn).max
    return (tensor / scale).to(torch.float8_e4m3fn), scale.float()


if __name__ == "__main__":
    sys.exit(main())
