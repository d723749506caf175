# ruff: noqa: D400 (the first line is the whole question)
"""How much faster is S = (x A)(x B)^T than the best dense form, on one GPU, and does it reach its targets?

d = 4096 and Y = X in bfloat16, normal random data. In a CUDA graph of n calls, each with an x and an S of its own
(n from three caches' bytes), weights and factors as warm as that leaves them; then launched by the host, cold too.
Every implementation and `impl="auto"` at every rank, and the dense forms that benchmarks/dense.py found fastest,
interleaved: one sample of each a round, ratios by round with a 99 % interval. Sampled rows of the first and the
last call are compared with float64 into NaN-filled memory before and after; a wrong row has no time.

    python benchmarks/chain.py build/chain.json
    python benchmarks/chain.py - --tokens 64,512 --ranks 64 --minutes 0.5
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from _chain_point import Point
from _chain_targets import judge, report
from _dense import PLAIN
from _gpu import Shares, closing, numbers, opening, require_gpu, save
from _race import race
from _rows import Row, contenders, row_of
from _setting import Setting, this_gpu

if TYPE_CHECKING:
    from collections.abc import Sequence

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
RANKS = (64, 128, 256)
DENSE = Path(__file__).parent / "results" / "dense-h200.json"
EAGER_RANK = 64
EAGER_SHARE = 0.25  # of a length's time


def main() -> int:
    """Measure, print, record; 1 when a row is wrong or failed."""
    arguments = parse()
    require_gpu()
    import torch

    from narrows.kernels.tuned import misses

    with torch.inference_mode():
        setting = this_gpu()
        record = opening((__doc__ or "").splitlines()[0], setting.ceilings)
        began, rows = time.perf_counter(), []
        shares = Shares(arguments.minutes * 60, len(arguments.tokens))
        for tokens in arguments.tokens:
            rows += measure(tokens, arguments, setting, end=shares.end_of_next())
            record |= {"width": arguments.width, "rows": rows, "judged": judge(rows), "captured_unprepared": misses()}
            save(
                arguments.output, record | closing(began)
            )  # after each length: a run that is cut off leaves what it has
            torch.cuda.empty_cache()
    print(report(rows))
    return int(any(row["status"] in {"failed", "wrong result"} for row in rows))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", help="a JSON file, or - for none")
    parser.add_argument("--tokens", type=numbers, default=LENGTHS, help="default 64,128,...,8192")
    parser.add_argument("--ranks", type=numbers, default=RANKS, help="default 64,128,256")
    parser.add_argument("--width", type=int, default=4096, help="d (default 4096)")
    parser.add_argument("--minutes", type=float, default=3.0, help="for everything; cuts rounds, 12 at least")
    parser.add_argument("--dense", default=str(DENSE), help="record of benchmarks/dense.py (default the H200's)")
    return parser.parse_args(argv)


def measure(tokens: int, arguments: argparse.Namespace, setting: Setting, *, end: float) -> list[Row]:
    """Return the rows of one length: in a graph, launched by the host, and what memory a call takes.

    Args:
        end: when to be done, on the setting's clock.
    """
    dense = contenders(arguments.dense, tokens, setting.name)
    if not dense:
        print(f"{tokens} tokens: {arguments.dense} does not say which dense form is fastest on {setting.name}.")
    point = Point(tokens, arguments.width, arguments.ranks, setting, dense=dense or PLAIN)
    graph_end = end - EAGER_SHARE * max(end - setting.clock(), 0.0)
    racers = point.dense_racers("graph") + point.thin_racers("graph", point.ranks)
    race(racers, setting.graph, end=graph_end, clock=setting.clock)
    rows = [row_of(racer, tokens=tokens, mode="graph") for racer in racers]
    rows += eager_rows(point, setting, end=end)
    return rows + point.peaks() if setting.device == "cuda" else rows


def eager_rows(point: Point, setting: Setting, *, end: float) -> list[Row]:
    """Return the host-launched rows at rank 64, or at the smallest rank where 64 was not asked for."""
    rank = EAGER_RANK if EAGER_RANK in point.ranks else min(point.ranks)
    racers = point.dense_racers("eager") + point.thin_racers("eager", [rank])
    race(racers, setting.eager, end=end, clock=setting.clock)
    return [row_of(racer, tokens=point.problem.tokens, mode="eager") for racer in racers]


if __name__ == "__main__":
    sys.exit(main())
