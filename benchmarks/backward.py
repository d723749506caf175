# ruff: noqa: D400 (the first line is the whole question)
"""Do both gradients of S = P Q^T in one pass over dS beat two matmuls, on one GPU?

dP = dS Q and dQ = dS^T P in bfloat16, in a CUDA graph, each call with a dS of its own (three caches' bytes), P and Q
hot. Interleaved, both results checked before and after, ratios by round with a 99 % interval. About 20 seconds.

    python benchmarks/backward.py build/backward.json
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from _gpu import Shares, closing, numbers, opening, require_gpu, save
from _material import checked_calls, normal
from _race import Expected, Racer, race
from _rows import Row, as_json, fastest, limit_of, never_slower, of, ratio, row_of, show, table
from _setting import Setting, this_gpu

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    Gradients = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

LENGTHS = (512, 1024, 2048, 4096, 8192)
RANKS = (64, 128)
OWN, TWO = "triton", "two"


def main() -> int:
    """Measure, print, record; 1 when a row is wrong or failed."""
    arguments = parse()
    require_gpu()
    import torch

    with torch.inference_mode():
        setting = this_gpu(seconds=2.0)
        record = opening((__doc__ or "").splitlines()[0], setting.ceilings)
        began, rows = time.perf_counter(), []
        points = [(tokens, rank) for tokens in arguments.tokens for rank in arguments.ranks]
        shares = Shares(arguments.seconds, len(points))
        for tokens, rank in points:
            rows += measure(tokens, rank, setting, end=shares.end_of_next())
            torch.cuda.empty_cache()
    save(arguments.output, record | {"rows": rows, "judged": judge(rows)} | closing(began))
    print(report(rows))
    return int(any(row["status"] in {"failed", "wrong result"} for row in rows))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", help="a JSON file, or - for none")
    parser.add_argument("--tokens", type=numbers, default=LENGTHS, help="default 512,...,8192")
    parser.add_argument("--ranks", type=numbers, default=RANKS, help="default 64,128")
    parser.add_argument("--seconds", type=float, default=12.0, help="for everything; cuts rounds, 12 at least")
    return parser.parse_args(argv)


def measure(tokens: int, rank: int, setting: Setting, *, end: float) -> list[Row]:
    """Return the rows of one length and rank; `end` is when to be done, on the setting's clock."""
    racers = racers_of(tokens, rank, setting)
    race(racers, setting.graph, end=end, clock=setting.clock)
    return [row_of(racer, tokens=tokens, mode="graph") for racer in racers]


def racers_of(tokens: int, rank: int, setting: Setting) -> list[Racer]:
    """Return two matmuls, and the own kernel where there is one."""
    import torch

    dtype = getattr(torch, setting.dtype)
    count = setting.calls(dtype.itemsize * tokens * tokens)
    grad_NTT = normal(count, tokens, tokens, seed=tokens, device=setting.device, dtype=dtype)
    p, q = (normal(tokens, rank, seed=seed, device=setting.device, dtype=dtype) for seed in (1, 2))
    expected = {number: expect(grad_NTT[number], p, q) for number in checked_calls(count)}
    limit = limit_ns(tokens, rank, setting)
    found = [Racer(TWO, rank, lambda n: two_matmuls(grad_NTT[n], p, q), count, expected, limit)]
    own, why = own_gradients()
    if own is None:
        return [*found, Racer(OWN, rank, lambda _: p, 0, {}, status="refused", reason=why)]
    return [*found, Racer(OWN, rank, lambda n: tuple(own(grad_NTT[n], p, q)), count, expected, limit)]


def own_gradients() -> tuple[Gradients | None, str]:
    """Return the own function for both gradients, or None and why there is none."""
    from narrows import kernels

    own = getattr(kernels, "score_gradients", None)
    return own, "" if own else "narrows.kernels has no score_gradients"


def two_matmuls(grad: torch.Tensor, p: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (dS Q, dS^T P)."""
    return grad @ q, grad.mT @ p


def expect(grad: torch.Tensor, p: torch.Tensor, q: torch.Tensor) -> tuple[Expected, Expected]:
    """Return what sampled rows of dP and dQ must be; each is one matmul, x W^T with x = dS and W = Q^T."""
    from narrows._oracle import dense_linear_bound
    from narrows.bench._accuracy import sampled_rows

    rows = sampled_rows(len(grad), 0).to(grad.device)
    left = dense_linear_bound(grad[rows], q.mT)
    right = dense_linear_bound(grad.mT[rows], p.mT)
    return Expected(rows, left), Expected(rows, right)


def limit_ns(tokens: int, rank: int, setting: Setting) -> float:
    """Return the least time: dS read once, both gradients written, both matmuls computed, one launch."""
    import torch

    from narrows._cost import Cost

    size = getattr(torch, setting.dtype).itemsize
    thin = 2 * tokens * rank * size
    cost = Cost(4 * tokens * tokens * rank, size * tokens * tokens + thin, thin, 0)
    return limit_of(cost, 1, setting.ceilings, hot_bytes=thin)


def judge(rows: Sequence[Row]) -> list[Row]:
    """Return the own kernel's gain over two matmuls at every length and rank."""
    points = dict.fromkeys((row["tokens"], row["rank"]) for row in rows)
    return [_judged(of(rows, tokens=tokens, rank=rank)) for tokens, rank in points]


def _judged(rows: Sequence[Row]) -> Row:
    two, own = fastest(of(rows, variant=TWO)), fastest(of(rows, variant=OWN))
    over = as_json(ratio(two, own)) if two and own else None
    why = next((row["reason"] for row in of(rows, variant=OWN) if row["status"] != "ok"), "")
    return {
        "tokens": rows[0]["tokens"],
        "rank": rows[0]["rank"],
        "two_us": two and two["time_us"],
        "own_us": own and own["time_us"],
        "own_share": own and own["share"],
        "over_two": over,
        "never_slower": never_slower(over),
        "note": why,
    }


def report(rows: Sequence[Row]) -> str:
    """Return a table of both gradients: own kernel against two matmuls."""
    lines = [
        (
            each["tokens"],
            each["rank"],
            *("-" if each[name] is None else f"{each[name]:.2f}" for name in ("two_us", "own_us")),
            "-" if each["own_share"] is None else f"{each['own_share']:.0%}",
            show(each["over_two"]),
            each["never_slower"],
            each["note"] or "-",
        )
        for each in judge(rows)
    ]
    headings = ("tokens", "rank", "two us", "own us", "share", "own over two [99 %]", "never slower", "note")
    return table(headings, lines)


if __name__ == "__main__":
    sys.exit(main())
