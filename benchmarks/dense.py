# ruff: noqa: D400 (the first line is the whole question)
"""Which dense form of S = x W^T x^T is the fastest on one GPU: order of the matmuls, layout of W, or max-autotune?

d = 4096, bfloat16, in a CUDA graph, cold x and S, W as warm as that leaves it. All forms interleaved, checked and
timed as in benchmarks/chain.py, which races the winners recorded here. Tuning and compiling one length takes up to a
minute, so a record is made once; lengths that are measured again replace those of the file, the others stay.

    python benchmarks/dense.py benchmarks/results/dense-h200.json --tokens 64,128
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from _chain_point import Point
from _dense import COMPILED, PLAIN
from _gpu import numbers, opening, require_gpu, save
from _race import race
from _rows import Row, as_json, fastest, of, ratio, row_of, show, table
from _setting import Setting, this_gpu
from chain import LENGTHS

if TYPE_CHECKING:
    from collections.abc import Sequence


def main() -> int:
    """Measure, print, record; 1 when a form is wrong or failed."""
    arguments = parse()
    require_gpu()
    import torch

    with torch.inference_mode():
        setting = this_gpu()
        record = opening((__doc__ or "").splitlines()[0], setting.ceilings)
        rows = known(arguments.output)
        for tokens in arguments.tokens:
            rows = [row for row in rows if row["tokens"] != tokens] + measure(tokens, arguments, setting)
            rows.sort(key=lambda row: row["tokens"])
            save(arguments.output, record | {"width": arguments.width, "rows": rows})
            torch.cuda.empty_cache()
    print(report(rows))
    return int(any(row["status"] in {"failed", "wrong result"} for row in rows))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", help="a JSON file, or - for none")
    parser.add_argument("--tokens", type=numbers, default=LENGTHS, help="default 64,128,...,8192")
    parser.add_argument("--width", type=int, default=4096, help="d (default 4096)")
    parser.add_argument("--plain", action="store_true", help="leave torch.compile out")
    parser.add_argument("--seconds", type=float, default=4.0, help="of rounds for each length, 12 rounds at least")
    return parser.parse_args(argv)


def known(path: str) -> list[Row]:
    """Return the rows of an earlier record; none where there is no such file."""
    if path == "-" or not Path(path).exists():
        return []
    return list(json.loads(Path(path).read_text(encoding="utf-8"))["rows"])


def measure(tokens: int, arguments: argparse.Namespace, setting: Setting) -> list[Row]:
    """Return the rows of every dense form at one length."""
    names = PLAIN if arguments.plain else PLAIN + COMPILED
    racers = Point(tokens, arguments.width, (), setting, dense=names).dense_racers("graph")
    race(racers, setting.graph, seconds=arguments.seconds, clock=setting.clock)
    return [row_of(racer, tokens=tokens, mode="graph") for racer in racers]


def report(rows: Sequence[Row]) -> str:
    """Return a table: every form, and the fastest one's time over it."""
    lines = []
    for row in rows:
        best = fastest(of(rows, tokens=row["tokens"]))
        over = as_json(ratio(row, best)) if best else None
        time = "-" if row["time_us"] is None else f"{row['time_us']:.2f}"
        lines.append((row["tokens"], row["variant"], time, show(over), row["reason"] or "-"))
    return table(("tokens", "form", "us", "over the fastest [99 %]", "note"), lines)


if __name__ == "__main__":
    sys.exit(main())
