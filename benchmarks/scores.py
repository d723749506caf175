# ruff: noqa: D400 (the first line is the whole question)
"""Which launch sizes of the persistent scores kernel are right, and how fast are they beside torch.mm?

Right: against float64 on normal random data with a NaN-poisoned output, no element further off than rounding can take
it, nothing written outside, and repeats equal bit for bit. Fast: microseconds a call in a CUDA graph whose calls
rotate over at least 180 MB of outputs; P and Q stay in the L2 cache. Needs an NVIDIA GPU of capability 9.

    python benchmarks/scores.py                                     about 1 minute
    python benchmarks/scores.py --ranks 64 --only sweep --output -
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import time
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from _gpu import closing, opening, require_gpu, save
from narrows.kernels._config import Config, Tiles
from narrows.kernels.triton._persistent import BilinearPersistent, PersistentConfig, launch_scores, persistent_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

OUTPUT = Path(__file__).parent / "results" / "scores-cuda.json"
ROTATED_BYTES = 180 << 20
SIZES = (2048, 4096, 4104, 8192)
REPEATS = 20
TILES = Tiles(128, 128, 64, warps=8, stages=4)
BASE = PersistentConfig()
VARIANTS: dict[str, PersistentConfig] = {
    "128x128 4 stages, 2 staging": BASE,
    "128x128 strided": replace(BASE, order="strided"),
    "128x128 1 staging": replace(BASE, staging=1),
    "128x128 3 staging": replace(BASE, staging=3, stages=3),
    "128x128 2 stages": replace(BASE, stages=2),
    "128x128 4 warps": replace(BASE, warps=4),
    "128x128 plain": replace(BASE, staging=0),
    "128x128 plain strided": replace(BASE, staging=0, order="strided"),
    "128x128 2 programs": replace(BASE, stages=2, staging=1, programs=2),
    "128x128 2 programs, 4 warps": replace(BASE, stages=2, staging=1, programs=2, warps=4),
    "128x128 2 programs, 1 p": replace(BASE, stages=3, staging=1, p_buffers=1, programs=2),
    "128x128 2 programs, not ahead": replace(BASE, stages=2, staging=1, programs=2, ahead=False),
    "128x128 2 programs, plain": replace(BASE, stages=2, staging=0, programs=2),
    "128x256 1 staging": replace(BASE, n=256, stages=2, staging=1),
    "128x256 2 staging, 1 p": replace(BASE, n=256, stages=2, staging=2, p_buffers=1),
    "64x256 2 staging": replace(BASE, m=64, n=256, stages=2, warps=4),
    "64x256 8 warps": replace(BASE, m=64, n=256, stages=3, warps=8),
    "256x128 1 staging": replace(BASE, m=256, stages=3, staging=1),
    "256x128 2 staging, 1 p": replace(BASE, m=256, stages=3, staging=2, p_buffers=1),
    "64x128 2 staging": replace(BASE, m=64, stages=3, warps=4),
    "64x128 2 programs": replace(BASE, m=64, stages=3, warps=4, programs=2),
    "64x128 2 programs, strided": replace(BASE, m=64, stages=2, warps=4, programs=2, order="strided"),
    "64x128 3 programs": replace(BASE, m=64, stages=2, staging=1, p_buffers=1, warps=4, programs=3),
    "128x64 2 stages, 1 p": replace(BASE, n=64, stages=2, p_buffers=1),
    "64x128 2 stages, 1 p": replace(BASE, m=64, stages=2, p_buffers=1, warps=4),
    "64x64 2 programs, 1 p": replace(BASE, m=64, n=64, stages=2, staging=1, p_buffers=1, warps=4, programs=2),
    "128x64 2 programs": replace(BASE, n=64, stages=3, warps=4, programs=2),
    "64x64 3 programs": replace(BASE, m=64, n=64, stages=3, warps=4, programs=3),
}


def main() -> int:
    """Check and time every variant, print, record; 1 when one was wrong or could not run."""
    arguments = parse()
    require_gpu()
    torch.manual_seed(arguments.seed)
    began = time.perf_counter()
    compile_all(arguments.ranks, arguments.only)
    print(f"compiled in {time.perf_counter() - began:.1f} s")
    rows = [row for rank in arguments.ranks for row in rank_rows(rank, arguments.only, began + arguments.seconds)]
    chains = [chain_row(tokens, rank) for rank in arguments.ranks for tokens in (4096, 8192)]
    record = opening((__doc__ or "").splitlines()[0]) | {"seed": arguments.seed, "rows": rows, "chains": chains}
    for chain in chains:
        print(chain)
    print(f"{time.perf_counter() - began:.1f} s")
    save(arguments.output, record | closing(began))
    return int(any(row["wrong"] for row in rows))


def parse() -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=lambda text: [int(part) for part in text.split(",")], default=[64, 128, 256])
    parser.add_argument("--only", default="", help="variants whose name has this text")
    parser.add_argument("--seconds", type=float, default=80.0, help="no variant is begun after so many seconds")
    parser.add_argument("--output", default=str(OUTPUT), help="JSON file, or - for none")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def compile_all(ranks: list[int], only: str) -> None:
    """Fill Triton's cache on disk from several processes: half a second for each variant otherwise."""
    wanted = [
        (rank, config, flags, across)
        for rank in ranks
        for config, flags in variants(rank, only).values()
        for across in (False, True)
    ]
    workers = min(8, os.cpu_count() or 1)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.starmap(compile_one, wanted, chunksize=-(-len(wanted) // workers))


def compile_one(rank: int, config: PersistentConfig, flags: dict[str, bool], across: bool) -> None:
    """Run one variant on a small problem; what is wrong with it will be seen when it is measured."""
    p = torch.zeros(rank, 512, device="cuda", dtype=torch.bfloat16)
    p = p.t() if across else p.view(512, rank)
    with contextlib.suppress(Exception):
        launch_scores(p, p, torch.empty(512, 512, device="cuda", dtype=torch.bfloat16), config=config, **flags)
        torch.cuda.synchronize()


def rank_rows(rank: int, only: str, until: float) -> list[dict[str, Any]]:
    """Return one row for torch.mm and one a variant, printed as they come."""
    print(f"rank {rank}: us a call at 4096 and 8192 tokens; worst error as a share of what rounding allows")
    data = {tokens: Scores(tokens, rank) for tokens in SIZES}
    rows = []
    for name, calls in sides(rank, only).items():
        if time.perf_counter() > until:
            print("  out of time")
            break
        row: dict[str, Any] = {"rank": rank, "name": name, "wrong": "", **calls["about"]}
        try:
            row |= measured(calls["call"], data)
        except Exception as error:  # noqa: BLE001 (one variant that fails must not hide the others)
            row["wrong"] = f"{type(error).__name__}: {str(error)[:200]}"
        rows.append(row)
        times = " ".join(f"{row.get(f'us_{tokens}', float('nan')):7.2f}" for tokens in (4096, 8192))
        print(f"  {name:34} {times}  {row.get('worst', float('nan')):.3f} {row['wrong']}", flush=True)
    return rows


def variants(rank: int, only: str) -> dict[str, tuple[PersistentConfig, dict[str, bool]]]:
    """Return sizes and flags by name: every variant whose shared memory suffices."""
    best = persistent_config(TILES, rank)
    found: dict[str, tuple[PersistentConfig, dict[str, bool]]] = {
        "default": (best, {}),
        "default, overlap": (best, {"overlap": True}),
        "default, not ahead": (replace(best, ahead=False), {}),
        "default, causal": (best, {"causal": True}),
        **{name: (config, {}) for name, config in VARIANTS.items()},
    }
    return {name: one for name, one in found.items() if only in name and one[0].fits(rank)}


def sides(rank: int, only: str) -> dict[str, dict[str, Any]]:
    """Return what is compared, by name: torch.mm first, then each variant."""

    def matmul(p: Tensor, q: Tensor, out: Tensor) -> None:
        torch.mm(p, q.t(), out=out)

    found: dict[str, dict[str, Any]] = {"torch.mm": {"call": matmul, "about": {}}}
    for name, (config, flags) in variants(rank, only).items():
        found[name] = {"call": caller(config, flags), "about": {**asdict(config), **flags}}
    return found


def caller(config: PersistentConfig, flags: dict[str, bool]) -> Callable[[Tensor, Tensor, Tensor], None]:
    """Return a call of the kernel with these sizes."""

    def call(p: Tensor, q: Tensor, out: Tensor) -> None:
        launch_scores(p, q, out, config=config, **flags)

    call.causal = flags.get("causal", False)  # type: ignore[attr-defined]
    return call


class Scores:
    """p (T, R) and q (T, R), by rows and by columns, with their product in float64 and what rounding may add."""

    def __init__(self, tokens: int, rank: int, dtype: torch.dtype = torch.bfloat16) -> None:
        self.p, self.q = torch.randn(tokens, 2 * rank, device="cuda").to(dtype).split(rank, 1)
        both = torch.stack((self.p.t(), self.q.t()), 1).contiguous()  # (R, 2, T): p^T and q^T row by row in turn
        self.p_across, self.q_across = both[:, 0].t(), both[:, 1].t()
        p, q = self.p.double(), self.q.double()
        self.right = p @ q.t()
        half_step = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-11
        self.allowed = half_step * self.right.abs() + 2 * rank * 2.0**-23 * (p.abs() @ q.abs().t()) + 2.0**-25

    def worst(self, call: Callable[[Tensor, Tensor, Tensor], None], *, across: bool) -> float:
        """Return the largest error over what is allowed; inf where something is missing or written outside."""
        tokens = self.p.shape[0]
        around = torch.full((tokens + 64, tokens + 64), float("nan"), dtype=self.p.dtype, device="cuda")
        out = around[:tokens, :tokens]
        call(self.p_across if across else self.p, self.q_across if across else self.q, out)
        right = self.right
        if getattr(call, "causal", False):
            right = right.masked_fill(torch.ones_like(right, dtype=torch.bool).triu_(1), float("-inf"))
        error = ((out.double() - right).abs() / self.allowed).masked_fill_(right.isinf() & (out == right), 0)
        untouched = around[tokens:].isnan().all() and around[:, tokens:].isnan().all()
        return float(error.max()) if bool(untouched) and not bool(out.isnan().any()) else float("inf")


def measured(call: Callable[[Tensor, Tensor, Tensor], None], data: dict[int, Scores]) -> dict[str, Any]:
    """Return the worst error over all sizes and both layouts, what is wrong, and the times."""
    worst = {
        f"{tokens} {'across' if across else 'rows'}": scores.worst(call, across=across)
        for tokens, scores in data.items()
        for across in (False, True)
    }
    wrong = [f"{where}: error {share:.3g} of what is allowed" for where, share in worst.items() if not share <= 1]
    if not repeats(call, data[4096]):
        wrong.append("repeats differ")
    row = {"worst": max(worst.values()), "wrong": "; ".join(wrong)}
    for tokens in (4096, 8192):
        scores = data[tokens]
        row[f"us_{tokens}"] = graph_us(lambda out, s=scores: call(s.p, s.q, out), tokens)
        row[f"us_{tokens}_across"] = graph_us(lambda out, s=scores: call(s.p_across, s.q_across, out), tokens)
    return row


def repeats(call: Callable[[Tensor, Tensor, Tensor], None], scores: Scores) -> bool:
    """Return whether further calls give the same bits."""
    first, again = (torch.empty(scores.right.shape, dtype=scores.p.dtype, device="cuda") for _ in range(2))
    call(scores.p, scores.q, first)
    same = torch.ones((), dtype=torch.bool, device="cuda")
    for _ in range(REPEATS):
        again.fill_(float("nan"))
        call(scores.p, scores.q, again)
        same &= (first == again).all()
    return bool(same)


def graph_us(call: Callable[[Tensor], Any], tokens: int, *, replays: int = 7) -> float:
    """Return microseconds a call in a graph whose calls rotate over their outputs; the median of replays."""
    bytes_each = 2 * tokens * tokens
    outs = [
        torch.empty(tokens, tokens, dtype=torch.bfloat16, device="cuda") for _ in range(-(-ROTATED_BYTES // bytes_each))
    ]
    calls = max(24, len(outs))
    for out in outs:
        call(out)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _, out in zip(range(calls), cycle(outs), strict=False):
            call(out)
    graph.replay()
    samples = []
    for _ in range(replays):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) * 1000 / calls)
    return round(statistics.median(samples), 2)


def chain_row(tokens: int, rank: int, width: int = 4096) -> dict[str, Any]:
    """Return microseconds of the whole chain, cold x and s: two cuBLAS matmuls, and with the persistent kernel."""
    from narrows import Factors
    from narrows.kernels._stacked import BilinearTwo

    xs = [torch.randn(tokens, width, device="cuda").bfloat16() for _ in range(-(-ROTATED_BYTES // (4096 * tokens)))]
    factors = Factors(*(torch.randn(2, rank, width, device="cuda").bfloat16() / 64)).interleaved()
    two, gluon = BilinearTwo(), BilinearPersistent()
    alone, overlapped = (Config(TILES, TILES, overlap, projection="cublas") for overlap in ("none", "last"))
    own = Config(replace(TILES, n=min(128, 2 * rank), k=128, stages=3), TILES, "all")
    calls: dict[str, Callable[[Tensor, Tensor], Any]] = {
        "two": lambda x, out: two.run(x, factors, out=out),
        "gluon": lambda x, out: gluon.run_with(alone, x, factors, out=out),
        "gluon overlap": lambda x, out: gluon.run_with(overlapped, x, factors, out=out),
        "gluon, own projection": lambda x, out: gluon.run_with(own, x, factors, out=out),
    }
    row: dict[str, Any] = {"tokens": tokens, "rank": rank}
    for name, call in calls.items():
        turn = cycle(xs)
        row[name] = graph_us(lambda out, c=call, t=turn: c(next(t), out), tokens)
    return row


if __name__ == "__main__":
    raise SystemExit(main())
