# ruff: noqa: D400 (the first line is the whole question)
"""How much faster is y = (x A) B than two cuBLAS matmuls and than dense x W^T on one GPU, and how near its limit?

bfloat16, normal random data, in a CUDA graph of n calls, each with an x and a y of its own (three caches' bytes).
Factors hot: every call reads the same ones. Factors cold (up to 64 tokens): each call reads its own, as the layers of
a model do; so does dense. Interleaved, checked before and after, ratios by round with a 99 % interval.

    python benchmarks/linear.py build/linear.json
    python benchmarks/linear.py - --out 4096 --tokens 1,16 --ranks 64 --minutes 0.3
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from _gpu import Shares, closing, numbers, opening, require_gpu, save
from _linear_point import LinearPoint
from _linear_targets import judge, report
from _race import race
from _rows import Row, row_of
from _setting import Setting, this_gpu

if TYPE_CHECKING:
    from collections.abc import Sequence

LENGTHS = (1, 16, 64, 256, 1024, 4096, 16384)
OUT_FEATURES = (4096, 14336)
RANKS = (64, 256, 1024)
COLD_FACTORS_UP_TO = 64


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
        points = points_of(arguments)
        shares = Shares(arguments.minutes * 60, len(points))
        for tokens, out_features, factors in points:
            rows += measure(tokens, out_features, factors, arguments, setting, end=shares.end_of_next())
            record |= {
                "in_features": arguments.width,
                "rows": rows,
                "judged": judge(rows),
                "captured_unprepared": misses(),
            }
            save(
                arguments.output, record | closing(began)
            )  # after each point: a run that is cut off leaves what it has
            torch.cuda.empty_cache()
    print(report(rows))
    return int(any(row["status"] in {"failed", "wrong result"} for row in rows))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", help="a JSON file, or - for none")
    parser.add_argument("--tokens", type=numbers, default=LENGTHS, help="default 1,16,64,...,16384")
    parser.add_argument("--ranks", type=numbers, default=RANKS, help="default 64,256,1024")
    parser.add_argument("--width", type=int, default=4096, help="D (default 4096)")
    parser.add_argument("--out", type=numbers, default=OUT_FEATURES, help="E (default 4096,14336)")
    parser.add_argument("--minutes", type=float, default=2.0, help="for everything; cuts rounds, 12 at least")
    return parser.parse_args(argv)


def points_of(arguments: argparse.Namespace) -> list[tuple[int, int, str]]:
    """Return every (tokens, out_features, state of the factors)."""
    return [
        (tokens, out_features, factors)
        for out_features in arguments.out
        for tokens in arguments.tokens
        for factors in ("hot", "cold")
        if factors == "hot" or tokens <= COLD_FACTORS_UP_TO
    ]


def measure(
    tokens: int, out_features: int, factors: str, arguments: argparse.Namespace, setting: Setting, *, end: float
) -> list[Row]:
    """Return the rows of one point; `end` is when to be done, on the setting's clock."""
    point = LinearPoint(tokens, arguments.width, out_features, arguments.ranks, factors=factors, setting=setting)
    racers = point.racers()
    race(racers, setting.graph, end=end, clock=setting.clock)
    return [row_of(racer, tokens=tokens, out_features=out_features, factors=factors, mode="graph") for racer in racers]


if __name__ == "__main__":
    sys.exit(main())
