"""How fast the tool itself is: do helps answer in under 0.3 s, and what does an operation cost.

Starts the command 11 times for each help and records every time with the machine it was taken on in
benchmarks/results/speed-cpu.json; then asks benchmarks/operations.py about the operations.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import narrows
from narrows.cli import VERBS

HERE = Path(__file__).parent
RESULT = HERE / "results" / "speed-cpu.json"
RUNS = 11
TARGET_S = 0.3


def main() -> int:
    """Measure, print, record; 1 when a help missed the target or the operations did."""
    helps = {" ".join(["narrows", *verb, "--help"]): time_help(*verb) for verb in [(), *((v,) for v in VERBS)]}
    for line, times_s in helps.items():
        print(
            f"{line:30} {median(times_s):.3f} s  (target under {TARGET_S} s; {min(times_s):.3f} to {max(times_s):.3f})"
        )
    record(helps)
    operations = subprocess.run([sys.executable, HERE / "operations.py"], check=False)
    too_slow = [line for line, times_s in helps.items() if median(times_s) >= TARGET_S]
    return 1 if too_slow or operations.returncode else 0


def time_help(*verb: str) -> list[float]:
    """Return the seconds that each of RUNS new processes took; one more before them warms the disk cache."""
    return [run_help(*verb) for _ in range(RUNS + 1)][1:]


def run_help(*verb: str) -> float:
    """Return the seconds that one help took, from start to end of its process."""
    command = [Path(sys.executable).with_name("narrows"), *verb, "--help"]
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def record(helps: dict[str, list[float]]) -> None:
    """Write every time and what it was taken on."""
    data = {
        "question": "seconds from start to end of a help's process",
        "target_s": TARGET_S,
        "helps_s": helps,
        "machine": asdict(narrows.machine()),
        "load_average": os.getloadavg(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": narrows.__version__,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    print(f"recorded in {RESULT}")


if __name__ == "__main__":
    sys.exit(main())
