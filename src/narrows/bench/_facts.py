"""What is known of a point without running it: cost, launches, refusals, whether it fits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from narrows import kernels
from narrows._machine import available_bytes, machine
from narrows._values import Problem
from narrows.bench._point import Check, cost_of
from narrows.bench._timer import MAX_CALLS

if TYPE_CHECKING:
    from narrows._cost import Cost
    from narrows._values import Kind
    from narrows.bench._point import Point
    from narrows.kernels import Kernel

COLD_SETS = 3  # working sets rotate over 3x the last-level cache
MEMORY_MARGIN = 1.15  # a backend's own workspace: measured peaks were up to 1.113 times the formula from 64 MiB on


def thin_variants(kind: Kind, device: str) -> list[str]:
    """Return the names of the implementations of a kind, without those that can run nothing on this device.

    Those would be a refused row at every length and rank; `narrows doctor` says why they cannot run.
    """
    easiest = Problem(kind, tokens=8, in_features=16, out_features=16, dtype="float16", device=device)
    return [kernel.name for kernel in kernels.kernels_for(kind) if not kernel.refuses(easiest)]


def kernel_of(point: Point, problem: Problem) -> Kernel | None:
    """Return the implementation that runs a point; None for a dense one."""
    return None if point.rank is None else kernels.kernel(problem.kind, point.variant)


def _refusal(point: Point, problem: Problem) -> str:
    if point.mode == "graph" and problem.device.startswith("cpu"):
        return "graph mode replays a CUDA graph; this is a CPU"
    kernel = kernel_of(point, problem)
    return kernel.refuses(problem) if kernel else ""


def shortage(num_bytes: int, device: str) -> str:
    """Return what is missing of so much memory on a device now; empty when it fits."""
    free = available_bytes(device)
    if num_bytes * MEMORY_MARGIN <= free:
        return ""
    return f"needs {num_bytes / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free"


def num_sets(point: Point, cost: Cost, device: str) -> int:
    """Return how many sets of operands and result a row rotates over: 1 where it is hot."""
    if point.cache == "hot":
        return 1
    # Operands and result rotate; what lies between two matmuls is memory that the allocator hands out again.
    cache, rotated = machine(device).last_level_cache_bytes, cost.bytes_read + cost.bytes_written
    return min(max(2, math.ceil(COLD_SETS * cache / rotated)), MAX_CALLS)


def facts_of(point: Point, problem: Problem) -> Check:
    """Return a check that is "ok" as far as can be said without running the point."""
    kernel = kernel_of(point, problem)
    cost = cost_of(point, problem)
    refusal = _refusal(point, problem)
    others = (num_sets(point, cost, problem.device) - 1) * (cost.bytes_read + cost.bytes_written)
    missing = "" if refusal else shortage(cost.memory_bytes + others, problem.device)
    return Check(
        status="refused" if refusal else "does not fit" if missing else "ok",
        reason=refusal or missing,
        launches=kernel.launches(problem) if kernel else kernels.dense_launches(point.variant, problem),
        flops=cost.flops,
        bytes_read=cost.bytes_read,
        bytes_written=cost.bytes_written,
        memory_bytes=cost.memory_bytes,
    )
