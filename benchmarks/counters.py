# ruff: noqa: D400 (the first line is the whole question)
"""What bounds each kernel of the thin chain at 2048 and 4096 tokens on one GPU: memory, the tensor cores or latency?

Hardware counters of Nsight Compute (ncu) for the last call of each length, kernels one at a time, clocks as they are;
beside them a plain copy of x. A kernel near 100 % of a unit is bound by it; one far from every unit waits, and the
stalls say for what. About a minute.

    python benchmarks/counters.py build/counters.json
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import subprocess
import sys
import time
from pathlib import Path

from _gpu import NOT_HERE, closing, opening, require_gpu, save

SECTIONS = ("SpeedOfLight", "MemoryWorkloadAnalysis", "Occupancy", "LaunchStats", "WarpStateStats")
STALLS = "smsp__average_warps_issue_stalled_"
WANTED = {
    "microseconds": "gpu__time_duration.sum",
    "multiprocessors_percent": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "memory_percent": "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",
    "dram_percent": "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
    "second_level_cache_percent": "lts__t_sectors.avg.pct_of_peak_sustained_elapsed",
    "tensor_core_percent": "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
    "dram_bytes_read": "dram__bytes_read.sum",
    "dram_bytes_written": "dram__bytes_write.sum",
    "cache_bytes": "lts__t_bytes.sum",
    "blocks": "launch__grid_size",
    "warps_active_percent": "sm__warps_active.avg.pct_of_peak_sustained_active",
}


def main() -> int:
    """Profile, print, record; 3 where there is no profiler or it reads no counters."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", help="a JSON file, or - for none")
    parser.add_argument("--tokens", default="2048,4096")
    parser.add_argument("--rank", type=int, default=64)
    arguments = parser.parse_args()
    require_gpu()
    profiler = shutil.which("ncu")
    if profiler is None:
        print("not shown: ncu is not installed here", file=sys.stderr)
        return NOT_HERE
    record, began = opening((__doc__ or "").splitlines()[0]), time.perf_counter()
    rows = profile(profiler, arguments.tokens, arguments.rank)
    if not rows:
        return NOT_HERE
    save(
        arguments.output,
        record | {"tokens": arguments.tokens, "rank": arguments.rank, "kernels": rows} | closing(began),
    )
    for row in rows:
        print(text(row))
    return 0


def profile(profiler: str, tokens: str, rank: int) -> list[dict[str, object]]:
    """Return name and counters of the kernels of one call of each length and of a copy of its x, in order."""
    command = [
        profiler,
        "--clock-control",
        "none",
        "--profile-from-start",
        "off",
        "--csv",
        "--page",
        "raw",
        "--print-units",
        "base",
    ]
    command += [word for section in SECTIONS for word in ("--section", section)]
    command += ["--metrics", ",".join((*WANTED.values(), f"regex:{STALLS}.*_per_issue_active.ratio"))]
    calls = Path(__file__).with_name("_counter_calls.py")
    ran = subprocess.run([*command, sys.executable, str(calls), tokens, str(rank)], capture_output=True, text=True)  # noqa: PLW1510 (its output says what is wrong)
    lines = [line for line in ran.stdout.splitlines() if line.startswith('"')]
    if not lines:
        print("not shown: ncu read no counters here:", (ran.stdout + ran.stderr)[-400:], file=sys.stderr)
        return []
    found = csv.DictReader(io.StringIO("\n".join(lines)))
    return [as_row(each) for each in found if each.get("Kernel Name")]


def as_row(found: dict[str, str]) -> dict[str, object]:
    """Return the wanted counters of one launch, and its three longest stalls in warps per issue."""
    row: dict[str, object] = {"kernel": found["Kernel Name"][:80]}
    row |= {name: number(found.get(metric, "")) for name, metric in WANTED.items()}
    if isinstance(row["microseconds"], float):
        row["microseconds"] = row["microseconds"] / 1000  # ncu's base unit is the nanosecond
    stalls = {
        key.removeprefix(STALLS).removesuffix("_per_issue_active.ratio"): number(value)
        for key, value in found.items()
        if key.startswith(STALLS)
    }
    longest = sorted(((v, k) for k, v in stalls.items() if v is not None), reverse=True)[:3]
    return row | {"stalls": {name: value for value, name in longest}}


def number(text: str) -> float | None:
    """Return a counter's value; None where this GPU has no such counter."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def text(row: dict[str, object]) -> str:
    """Return one line."""
    figures = ", ".join(f"{k} {v:.4g}" for k, v in row.items() if isinstance(v, float))
    return f"{row['kernel']}: {figures}; stalls {row['stalls']}"


if __name__ == "__main__":
    sys.exit(main())
