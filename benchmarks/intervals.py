"""How often does a 99 % interval hold the true ratio, and how far do stalls move a sample? A simulation with a seed.

Records benchmarks/results/intervals.json. Runs in about 15 seconds; nothing is timed.

    python benchmarks/intervals.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from narrows._stats import CONFIDENCE, FEWEST_ROUNDS, median_interval

if TYPE_CHECKING:
    from collections.abc import Callable

OUTPUT = Path(__file__).parent / "results" / "intervals.json"
RUNS, RESAMPLES, MOST_ROUNDS, TARGET_WIDTH = 4000, 1000, 60, 0.05
CALL_MS, STALL_MS, BLOCKS, SAMPLES = 0.9, 40.0, 5, 4000

Noise = dict[str, "Callable[[np.random.Generator, int], np.ndarray]"]
NOISE: Noise = {  # per-round ratios whose true median is 1
    "lognormal 3 %": lambda rng, n: np.exp(rng.normal(0, 0.03, n)),
    "skewed": lambda rng, n: 1 + 0.03 * (rng.exponential(1.0, n) - np.log(2)),
}


def bootstrap_interval(ratios: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return the percentile bootstrap of the median, for comparison."""
    medians = np.median(ratios[rng.integers(0, len(ratios), (RESAMPLES, len(ratios)))], axis=1)
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def stopped(noise: Callable[[np.random.Generator, int], np.ndarray], rng: np.random.Generator) -> tuple[float, float]:
    """Return the interval at which rounds stop: the first one narrower than 5 %, from 8 rounds on."""
    ratios = noise(rng, MOST_ROUNDS)
    for count in range(FEWEST_ROUNDS, MOST_ROUNDS + 1):
        low, high = median_interval(ratios[:count].tolist())
        if (high - low) / np.median(ratios[:count]) < TARGET_WIDTH:
            break
    return low, high


def coverage(name: str) -> dict[str, object]:
    """Return the share of runs whose interval holds 1, by method and rounds, for one kind of noise."""
    noise, rng = NOISE[name], np.random.default_rng(0)
    row: dict[str, object] = {"noise": name, "runs": RUNS}
    for count in (2, 4, 8, 12, 20):
        drawn = [noise(rng, count) for _ in range(RUNS)]
        row[f"order statistics, {count} rounds"] = _share([median_interval(r.tolist()) for r in drawn])
        row[f"bootstrap, {count} rounds"] = _share([bootstrap_interval(r, rng) for r in drawn])
    row["order statistics, stopped when narrow"] = _share([stopped(noise, rng) for _ in range(RUNS)])
    return row


def _share(intervals: list[tuple[float, float]]) -> float:
    return round(float(np.mean([low <= 1 <= high for low, high in intervals])), 4)


def stalls(share: float) -> dict[str, float]:
    """Return the median sample (ms) of a call of 0.9 ms of which a share is held back for 40 ms.

    A timer makes 10 calls: their mean, or, as narrows does, the median of 5 blocks of 2.
    """
    calls = CALL_MS + STALL_MS * (np.random.default_rng(1).random((SAMPLES, 2 * BLOCKS)) < share)
    blocks = calls.reshape(SAMPLES, BLOCKS, 2).mean(axis=2)
    return {
        "share of calls held back": share,
        "mean of 10 calls, ms": round(float(np.median(calls.mean(axis=1))), 2),
        "median of 5 blocks of 2 calls, ms": round(float(np.median(np.median(blocks, axis=1))), 2),
    }


def main() -> None:
    """Simulate, print and record."""
    record = {
        "question": (__doc__ or "").splitlines()[0],
        "coverage": [coverage(name) for name in NOISE],
        "stalls": [stalls(share) for share in (0.02, 0.05, 0.1, 0.2, 0.3)],
    }
    text = json.dumps(record, indent=2)
    OUTPUT.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
