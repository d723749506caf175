"""Which sizes of an own kernel are worth timing: one part of the chain after the other, never their product.

First the projection with the rest fixed, then the second matmul, then how they are launched: about 12 + 10 + 4
candidates in place of thousands.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from narrows._values import DTYPE_BYTES
from narrows.kernels.tuned import Config, Tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from narrows.kernels._config import Overlap
    from narrows.kernels.tuned import Limits, Signature

PROJECTIONS, SECONDS = 12, 10
PERSISTENT_PROJECTIONS = 8
OVERLAPS: tuple[Overlap, ...] = ("early", "all", "last", "none")
SHORT = 256  # tokens up to which the second kernel may add the partial sums as it loads them
SECOND_TILES = (
    (16, 32), (16, 64), (16, 128), (32, 32), (32, 64), (64, 32), (64, 64), (64, 128), (128, 64), (128, 128), (128, 256),
)  # fmt: skip
PERSISTENT = "gluon"
PERSISTENT_TILES = ((128, 128), (128, 256), (256, 128), (64, 256), (64, 128), (128, 64), (64, 64))

Times = dict[Config, float]


def search(
    start: Config,
    others: Iterable[Config],
    signature: Signature,
    found: Limits,
    time: Callable[[Config], float],
    *,
    name: str,
) -> Times:
    """Return the time of every candidate that was tried; infinite where it cannot run.

    Args:
        start: sizes to begin at.
        others: further ones to try first, e.g. the best of a neighbouring length.
        signature: of the call.
        found: limits of the device.
        time: nanoseconds of one call.
        name: of the implementation.
    """
    times: Times = {}

    def best_of(configs: Iterable[Config]) -> Config:
        for config in configs:
            if config not in times:
                times[config] = time(config)
        return min(times, key=lambda config: times[config])

    start = replace(start, overlap="all")  # what is best differs little by this, and it is most often faster
    best = best_of([start, *others])
    if name == PERSISTENT:
        best = best_of(replace(best, second=tiles) for tiles in persistent_tiles(best.second))
        best = best_of(replace(best, second=tiles) for tiles in persistent_depths(best.second))
        best = best_of([replace(best, projection="cublas", overlap="last")])
        if signature.is_self:
            mine = replace(best, projection="own", overlap="all")
            sizes = projections(start.project, signature, found)[:PERSISTENT_PROJECTIONS]
            best = best_of(replace(mine, project=tiles) for tiles in (start.project, *sizes))
    else:
        best = best_of(replace(best, project=tiles) for tiles in projections(best.project, signature, found))
        best = best_of(replace(best, second=tiles) for tiles in seconds(best.second, signature, found))
    # The order of launches moves the best sizes a little: what came next to the best gets its chance too.
    for each in fastest(times, 2):
        best_of(launchings(each, signature))
    return times


def persistent_tiles(now: Tiles) -> list[Tiles]:
    """Return tiles of the persistent scores kernel."""
    sizes = [replace(now, m=m, n=n, warps=8 if m * n >= 128 * 128 else 4) for m, n in PERSISTENT_TILES]
    return [tiles for tiles in sizes if tiles != now]


def persistent_depths(now: Tiles) -> list[Tiles]:
    """Return the same tile with other tiles in flight, programs of a multiprocessor (split) and warps."""
    sizes = [
        replace(now, stages=stages, split=programs, warps=warps)
        for stages in (2, 3, 4)
        for programs in (1, 2)
        for warps in (4, 8)
    ]
    return [tiles for tiles in sizes if tiles != now]


def projections(now: Tiles, signature: Signature, found: Limits) -> list[Tiles]:
    """Return sizes of the projection, those first whose number of programs is nearest to the multiprocessors."""
    tokens = max(signature.tokens, signature.other_tokens)
    tried = [
        Tiles(m, n, k, split=split, warps=8 if m * n > 64 * 128 else 4, stages=stages)
        for m in (16, 32, 64, 128)
        for n in (16, 32, 64, 128)
        for k in (32, 64, 128, 256)
        for split in (1, 2, 4, 8, 16, 32)
        for stages in (3, 4)
        if m <= _power_above(tokens) and n <= _power_above(signature.rows)
        if split * k * 2 <= max(signature.in_features, 2 * k)
        if stages * (m + n) * k * DTYPE_BYTES[signature.dtype] <= found.shared_bytes
    ]

    def distance(tiles: Tiles) -> tuple[float, float, int]:
        programs = -(-tokens // tiles.m) * -(-signature.rows // tiles.n) * tiles.split
        fill = abs(math.log2(programs / found.num_multiprocessors))
        change = sum(abs(math.log2(a / b)) for a, b in ((tiles.m, now.m), (tiles.n, now.n), (tiles.k, now.k)))
        return fill + 0.5 * change, fill, tiles.stages

    return sorted((tiles for tiles in tried if tiles != now), key=distance)[:PROJECTIONS]


def seconds(now: Tiles, signature: Signature, found: Limits) -> list[Tiles]:
    """Return sizes of the second matmul, those first that are nearest to the sizes now."""
    columns = signature.out_features if signature.kind == "linear" else signature.other_tokens or signature.tokens
    inner = min(_power_above(signature.rank), 128)
    tried = [
        Tiles(m, n, k, warps=warps, stages=now.stages)
        for m, n in SECOND_TILES
        for k in {inner, min(inner, 64)}
        for warps in ((4, 8) if m * n >= 128 * 128 else (4,))
        if m <= _power_above(signature.tokens) and n <= _power_above(columns)
        if 2 * (m + n) * k * DTYPE_BYTES[signature.dtype] <= found.shared_bytes
    ]

    def distance(tiles: Tiles) -> tuple[float, int, int]:
        change = abs(math.log2(tiles.m / now.m)) + abs(math.log2(tiles.n / now.n))
        return change, -tiles.k, tiles.warps

    return sorted((tiles for tiles in tried if tiles != now), key=distance)[:SECONDS]


def launchings(now: Config, signature: Signature) -> list[Config]:
    """Return the other ways to launch the same sizes."""
    found = [replace(now, overlap=how) for how in OVERLAPS]
    if signature.kind == "linear" and now.project.split > 1 and signature.tokens <= SHORT:
        other = "load" if now.reduce == "kernel" else "kernel"
        found += [replace(config, reduce=other) for config in found]  # type: ignore[arg-type]
    return [config for config in found if config != now]


def short_chains(now: Config, signature: Signature) -> list[Config]:
    """Return sizes with the fewest launches, for calls whose time is the host's: no parts, or parts added on load."""
    tokens, rows = _power_above(signature.tokens), _power_above(signature.rows)
    found = [
        replace(now, project=Tiles(min(m, tokens), min(n, rows), 128, stages=4), reduce="kernel", overlap="all")
        for m, n in ((16, 16), (32, 32), (64, 64))
    ]
    if signature.kind == "linear" and now.project.split > 1 and signature.tokens <= SHORT:
        found.append(replace(now, reduce="load", overlap="all"))
    return list(dict.fromkeys(found))


def fastest(times: Times, count: int) -> list[Config]:
    """Return the fastest candidates that ran, best first."""
    return sorted((config for config, ns in times.items() if ns < math.inf), key=lambda config: times[config])[:count]


def _power_above(value: int) -> int:
    return max(16, 1 << (max(value, 1) - 1).bit_length())
