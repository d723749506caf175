"""What speaks against a row's samples: spread, drift, quantised times, few rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from narrows._stats._ratio import FEWEST_ROUNDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# How each kind of doubt begins.
DOUBTS = ("few rounds", "spread", "drift", "quantised times", "faster than the limit")
SLICE_NS = 4e6
MAX_SPREAD = 0.10
MAX_DRIFT = 0.10


def median(samples: Sequence[float]) -> float:
    """Return the median."""
    return float(np.median(np.asarray(samples, dtype=np.float64)))


def spread(samples: Sequence[float]) -> float:
    """Return the interquartile range over the median (0.1 is 10 %)."""
    low, middle, high = np.quantile(np.asarray(samples, dtype=np.float64), [0.25, 0.5, 0.75])
    return float((high - low) / middle)


def drift(samples: Sequence[float]) -> float:
    """Return the median of the last quarter over the median of the first quarter."""
    quarter = max(len(samples) // 4, 1)
    return median(samples[-quarter:]) / median(samples[:quarter])


def stalled(samples: Sequence[float]) -> int:
    """Return how many samples carry a scheduling stall: they come in steps of 4 ms.

    On shared machines a call is sometimes held back 8 ms, or 64 to 72 ms, and then goes on. A
    sample counts when it takes at least 1.5 times the fastest, so that ordinary noise is not taken
    for a stall, and it or its excess over the fastest is a whole number of 4 ms slices to within
    0.1 ms a slice of 8 ms.
    """
    values = np.asarray(samples, dtype=np.float64)
    excess = values - values.min()
    return int(np.count_nonzero((excess >= 0.5 * values.min()) & (_is_stepped(values) | _is_stepped(excess))))


def _is_stepped(times: NDArray[np.float64]) -> NDArray[np.bool_]:
    steps = np.round(times / SLICE_NS)
    return (steps >= 1) & (np.abs(times - steps * SLICE_NS) <= 0.05e6 * np.maximum(steps, 1))


def doubts(samples: Sequence[float], *, limit_ns: float | None = None) -> tuple[str, ...]:
    """Return what speaks against these samples, one sentence each; empty when nothing does."""
    found: list[str] = []
    if not samples:
        return ()
    if len(samples) < FEWEST_ROUNDS:
        found.append(f"few rounds ({len(samples)}): a 99 % interval needs {FEWEST_ROUNDS}")
    if len(samples) >= 2 and spread(samples) > MAX_SPREAD:
        found.append(f"spread {spread(samples):.0%} (IQR / median) is over {MAX_SPREAD:.0%}")
    if len(samples) >= FEWEST_ROUNDS and abs(drift(samples) - 1) > MAX_DRIFT:
        found.append(f"drift: the last quarter took {drift(samples):.2f}x the first")
    if len(samples) >= 2 and (count := stalled(samples)):
        found.append(f"quantised times: {count} of {len(samples)} samples come in the 4 ms steps of a scheduler")
    if limit_ns is not None and median(samples) < limit_ns:
        found.append(
            f"faster than the limit: {median(samples) / 1e3:.1f} us against {limit_ns / 1e3:.1f} us; "
            "the ceilings or the count of bytes are wrong here"
        )
    return tuple(found)
