# ruff: noqa: D400 (the first line is the whole question)
"""How fast is a decode step against a narrow cache, how near the read ceiling, and which backend prefills fastest?

Decode: batch 8, 32 query and 8 key heads, bfloat16, one query; keys of width R, values of width F; (128, 128) is the
dense cache. First a dozen launch sizes at 16384 keys, the fastest kept as "triton tuned" beside the sizes by
formula; then every length. In a CUDA graph of n calls, each with a cache of its own (three caches' bytes).
Prefill: 32 heads, T = U, torch's fused kernels and narrows' choice, full and causal.
Interleaved; the first and the last call are checked against float64 before and after, into NaN-filled memory; a
wrong row has no time. A share is bytes / time / the read ceiling measured in this run (prefill: FLOPs too).

    python benchmarks/attention.py build/attention.json
    python benchmarks/attention.py - --keys 16384 --prefill 1024 --minutes 0.5
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from _attention_points import (
    TUNED,
    Sizes,
    best_config,
    decode_rows,
    prefill_rows,
    sweep_rows,
)
from _gpu import Shares, closing, numbers, opening, require_gpu, save
from _rows import Row, as_json, fastest, of, ratio, show, table
from _setting import Setting, this_gpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows.kernels import DecodeConfig

KEYS = (4096, 8192, 16384, 32768, 65536)
SWEPT_KEYS = 16384
PREFILL = (512, 1024, 2048, 4096)
DENSE = (128, 128)
WIDTHS = (DENSE, (64, 128), (64, 64), (32, 128), (32, 64))
PREFILL_WIDTHS = (DENSE, (64, 128), (64, 64), (32, 128))
BATCH, HEADS, GROUPS = 8, 32, 8
TARGET = 0.8  # of the read ceiling, from 16384 keys, for the narrow caches
OWN = ("triton", TUNED)


def main() -> int:
    """Measure, print, record; 1 when a row is wrong or failed."""
    arguments = parse()
    require_gpu()
    import torch

    with torch.inference_mode():
        setting = this_gpu()
        record = opening((__doc__ or "").splitlines()[0], setting.ceilings)
        began, rows = time.perf_counter(), []
        shares = Shares(arguments.minutes * 60, len(WIDTHS) + len(arguments.keys) + len(arguments.prefill))
        swept, tuned = sweep(setting, shares)
        print(sweep_table(swept))
        for keys in arguments.keys:
            rows += decode_rows(decode_sizes(keys), tuned, setting, end=shares.end_of_next())
            torch.cuda.empty_cache()
            save(arguments.output, record | {"sweep": swept, "rows": rows, "judged": judge(rows)} | closing(began))
        for tokens in arguments.prefill:
            rows += prefill_rows(prefill_sizes(tokens), setting, end=shares.end_of_next())
            torch.cuda.empty_cache()
    save(arguments.output, record | {"sweep": swept, "rows": rows, "judged": judge(rows)} | closing(began))
    print(report(rows))
    return int(any(row["status"] in {"failed", "wrong result"} for row in swept + rows))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", help="a JSON file, or - for none")
    parser.add_argument("--keys", type=numbers, default=KEYS, help="default 4096,...,65536")
    parser.add_argument("--prefill", type=numbers, default=PREFILL, help="T = U; default 512,...,4096")
    parser.add_argument("--minutes", type=float, default=1.0, help="for everything; cuts rounds, 12 at least")
    return parser.parse_args(argv)


def decode_sizes(keys: int) -> list[Sizes]:
    """Return the decode steps of one length."""
    return [Sizes(BATCH, HEADS, GROUPS, 1, keys, rank, width) for rank, width in WIDTHS]


def prefill_sizes(tokens: int) -> list[Sizes]:
    """Return the prefills of one length."""
    return [
        Sizes(1, HEADS, HEADS, tokens, tokens, rank, width, causal)
        for rank, width in PREFILL_WIDTHS
        for causal in (False, True)
    ]


def sweep(setting: Setting, shares: Shares) -> tuple[list[Row], dict[tuple[int, int], DecodeConfig]]:
    """Return the rows of every launch size and the fastest one of each pair of widths."""
    import torch

    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    rows, best = [], {}
    for sizes in decode_sizes(SWEPT_KEYS):
        found = sweep_rows(sizes, setting, multiprocessors, end=shares.end_of_next())
        rows += found
        config = best_config(found)
        if config is not None:
            best[sizes.rank, sizes.width] = config
        torch.cuda.empty_cache()
    return rows, best


def judge(rows: Sequence[Row]) -> list[Row]:
    """Return, for each decode step, the share of the read ceiling and the speedup over the dense cache."""
    found = []
    for keys in sorted({row["keys"] for row in of(rows, kind="decode")}):
        at = of(rows, kind="decode", keys=keys)
        dense = fastest(of(at, rank=DENSE[0], width=DENSE[1]))
        for rank, width in WIDTHS:
            mine = of(at, rank=rank, width=width)
            own, torchs = fastest(r for r in mine if r["variant"] in OWN), fastest(of(mine, variant="sdpa"))
            if own is None:
                continue
            counts = keys >= SWEPT_KEYS and (rank, width) != DENSE
            found.append(
                {
                    "keys": keys,
                    "rank": rank,
                    "width": width,
                    "fastest": own["variant"],
                    "time_us": own["time_us"],
                    "share": own["share"],
                    "over_sdpa": None if torchs is None else as_json(ratio(torchs, own)),
                    "over_dense": None if dense is None else as_json(ratio(dense, own)),
                    "target": TARGET if counts else None,
                    "reached": bool(own["share"] >= TARGET) if counts else None,
                }
            )
    return found


def sweep_table(rows: Sequence[Row]) -> str:
    """Return the launch sizes of each pair of widths, fastest first."""
    lines = []
    for rank, width in WIDTHS:
        mine = of(rows, rank=rank, width=width)
        for row in sorted(mine, key=lambda r: (r["time_us"] is None, r["time_us"])):
            sizes = row["config"]
            lines.append(
                (f"({rank}, {width})", *sizes.values(), _us(row), _percent(row), row["status"], row["reason"][:60])
            )
    return table(("(R, F)", "block", "splits", "warps", "stages", "overlap", "us", "share", "status", ""), lines)


def report(rows: Sequence[Row]) -> str:
    """Return both tables."""
    decode = [
        (
            row["keys"], f"({row['rank']}, {row['width']})", row["fastest"], f"{row['time_us']:.1f}",
            f"{row['share']:.0%}", show(row["over_sdpa"]), show(row["over_dense"]),
            "" if row["reached"] is None else "yes" if row["reached"] else "no",
        )
        for row in judge(rows)
    ]  # fmt: skip
    prefill = [
        (row["keys"], f"({row['rank']}, {row['width']})", "causal" if row["causal"] else "full", row["variant"],
         _us(row), _percent(row), row["status"])
        for row in of(rows, kind="prefill")
    ]  # fmt: skip
    bad = [f"{row['variant']} {row['keys']} ({row['rank']}, {row['width']}): {row['status']}: {row['reason']}"
           for row in rows if row["status"] in {"failed", "wrong result"}]  # fmt: skip
    return "\n".join([
        "\ndecode, batch 8, 32 query and 8 key heads",
        table(("keys", "(R, F)", "fastest", "us", "share", "over sdpa", "over dense", f">= {TARGET:.0%}"), decode),
        "\nprefill, 32 heads",
        table(("T", "(R, F)", "mask", "backend", "us", "share", "status"), prefill),
        *bad,
    ])  # fmt: skip


def _us(row: Row) -> str:
    return "-" if row["time_us"] is None else f"{row['time_us']:.1f}"


def _percent(row: Row) -> str:
    return f"{row['share']:.0%}" if row.get("share") is not None else "-"


if __name__ == "__main__":
    sys.exit(main())
