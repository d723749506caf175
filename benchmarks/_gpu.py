"""What every GPU benchmark shares: whether it can run here, what machine it ran on, and its record.

Run as a script it answers the first question alone: exit 0, or one sentence and exit 3.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from narrows._values import Ceilings

NOT_HERE = 3  # exit status: no CUDA device, or a package is missing
PACKAGES = (
    "click",
    "filelock",
    "numpy",
    "platformdirs",
    "psutil",
    "pydantic",
    "rich",
    "safetensors",
    "torch",
    "triton",
)
TEST_PACKAGES = ("pytest", "hypothesis")
LEAST_COLD_BYTES = 180_000_000  # three times the 60 MB of an H200's second-level cache
FEWEST_CALLS, MOST_CALLS = 4, 2048


def missing(packages: Iterable[str]) -> list[str]:
    """Return the packages that this interpreter cannot find."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def obstacle(packages: Iterable[str] = PACKAGES) -> str:
    """Return in one sentence why no GPU benchmark runs here; empty when one can."""
    lacking = missing(packages)
    if lacking:
        return (
            f"{sys.executable} lacks {', '.join(lacking)}: install what is missing, or name another interpreter with "
            "PYTHON."
        )
    import torch

    if not torch.cuda.is_available():
        return (
            f"No CUDA device: torch {torch.__version__} sees none, so there is nothing to test or measure here; "
            "run this on a machine with an NVIDIA GPU."
        )
    return ""


def require_gpu(packages: Iterable[str] = PACKAGES) -> None:
    """End the process with one sentence and exit status 3 where no GPU benchmark can run."""
    reason = obstacle(packages)
    if reason:
        print(reason, file=sys.stderr)
        sys.exit(NOT_HERE)


def cold_bytes(last_level_cache_bytes: int) -> int:
    """Return how many bytes operands and results must rotate over to be cold: three caches, at least 180 MB."""
    return max(LEAST_COLD_BYTES, 3 * last_level_cache_bytes)


def num_calls(rotated_bytes: int, cold: int) -> int:
    """Return how many calls, each with memory of its own, rotate over `cold` bytes; 4 to 2048.

    Args:
        rotated_bytes: what one call has of its own.
        cold: from `cold_bytes`.
    """
    return min(max(FEWEST_CALLS, -(-cold // rotated_bytes)), MOST_CALLS)


def opening(question: str, ceilings: Ceilings | None = None) -> dict[str, object]:
    """Return the head of a record: the question, the machine, what it is doing now, its ceilings."""
    import narrows
    from narrows._machine import conditions, machine

    return {
        "question": question,
        "command": command(),
        "machine": asdict(machine("cuda")),
        "conditions": conditions("cuda"),
        "ceilings": None if ceilings is None else asdict(ceilings),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": narrows.__version__,
    }


def command() -> str:
    """Return this process's command line; of absolute paths, which say where it was run, the names only."""
    return " ".join(Path(word).name if word.startswith("/") else word for word in sys.argv)


def closing(began: float) -> dict[str, object]:
    """Return the end of a record: seconds since `began` on the performance counter, and what the machine does now."""
    from narrows._machine import conditions

    return {"seconds": round(time.perf_counter() - began, 1), "conditions_after": conditions("cuda")}


def save(path: str, record: dict[str, object]) -> None:
    """Write a record as JSON, whole or not at all; "-" writes nothing."""
    if path == "-":
        return
    from narrows._files import write_text_atomic

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(Path(path), json.dumps(record, indent=1) + "\n")


def numbers(text: str) -> tuple[int, ...]:
    """Return the whole numbers of a comma list: "64,128"."""
    return tuple(int(part) for part in text.split(","))


class Shares:
    """Splits a time over what is still to be done, so that a slow start shortens every later part alike.

    Args:
        seconds: for everything.
        count: parts.
        clock: seconds since any moment.
    """

    def __init__(self, seconds: float, count: int, clock: object = time.perf_counter) -> None:
        self._clock, self._end, self._left = clock, clock() + seconds, count  # type: ignore[operator]

    def end_of_next(self) -> float:
        """Return when the next part should end, on the clock; now, where nothing is left."""
        now = self._clock()  # type: ignore[operator]
        part = max(self._end - now, 0.0) / max(self._left, 1)
        self._left -= 1
        return float(now + part)


if __name__ == "__main__":
    require_gpu((*PACKAGES, *(TEST_PACKAGES if "--tests" in sys.argv else ())))
