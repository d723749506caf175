"""When a length has been measured enough, and what is best of two measurements of the ceilings: pure functions."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from narrows._stats import FEWEST_ROUNDS, paired_ratio

if TYPE_CHECKING:
    from collections.abc import Iterable

    from narrows.bench._point import Point

    Samples = dict[Point, dict[int, float]]

TARGET_WIDTH = 0.05


def shuffled(points: Iterable[Point], number: int) -> list[Point]:
    """Return the points in the order in which round `number` takes them.

    Drawn anew for each round, so that what slows a moment falls on either side of a ratio alike.
    """
    found = list(points)
    random.Random(number).shuffle(found)  # noqa: S311 (an order, not a secret)
    return found


def num_paired(point: Point, samples: Samples) -> int:
    """Count the rounds that hold the point and every dense side of its condition: only they make ratios."""
    rounds = set(samples[point])
    for dense, times in samples.items():
        if dense.rank is None and (dense.mode, dense.cache) == (point.mode, point.cache):
            rounds &= times.keys()
    return len(rounds)


def is_narrow(samples: Samples) -> bool:
    """Say whether every thin point's ratio to every dense side of its condition is known to 5 %."""
    pairs = [
        (times, dense_times)
        for thin, times in samples.items()
        for dense, dense_times in samples.items()
        if thin.rank is not None and dense.rank is None
        if (thin.mode, thin.cache) == (dense.mode, dense.cache)
    ]
    return all(_is_known(times, dense_times) for times, dense_times in pairs)


def _is_known(times: dict[int, float], dense_times: dict[int, float]) -> bool:
    rounds = sorted(times.keys() & dense_times.keys())
    if len(rounds) < FEWEST_ROUNDS:
        return False
    ratio = paired_ratio([dense_times[r] for r in rounds], [times[r] for r in rounds])
    return ratio.width < TARGET_WIDTH


def best_ceilings(known: dict[str, Any] | None, found: dict[str, Any]) -> dict[str, Any]:
    """Return the best of two measurements of the ceilings, part by part."""
    if known is None:
        return found
    best = {name: max(known[name], value) for name, value in found.items() if name.endswith("_per_s")}
    best |= {name: min(known[name], value) for name, value in found.items() if name.endswith("_launch_ns")}
    better = found if found["flops_per_s"] >= known["flops_per_s"] else known
    return {**found, **best, "flops_shape": better["flops_shape"]}
