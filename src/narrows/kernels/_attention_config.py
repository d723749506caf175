"""How a decode step is launched, by formula: one even wave of programs that together keep the memory busy.

Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

MOST_SPLITS = 128
# On one H200 (batch 8, 8 key heads, 16384 keys, bfloat16, five pairs of widths) two programs a multiprocessor were
# fastest, each with 40 KB or more on its way: 1 to 6 % ahead of as many as fit up to four. With 24 KB they lost 10 %.
MOST_RESIDENT = 2
ON_THEIR_WAY_BYTES = 40 << 10
LARGEST_BLOCK, MOST_STAGES = 128, 4
FEW_ROWS = 16  # of a key head: with more, a block of 128 keys takes 255 registers a thread and can spill
# Compiled for sm_90 (Triton 3.6): what a program takes beside its stages, and what a multiprocessor has in all,
# of which each program reserves 1 KB.
SCRATCH_BYTES = 6 << 10
SHARED_BYTES = 228 << 10
RESERVED_BYTES = 1 << 10


@dataclass(frozen=True, slots=True)
class DecodeConfig:
    """One way to launch a decode step.

    Attributes:
        block: keys that a program reads at a time.
        splits: programs that share the keys of one (batch, key head); above 1 a second kernel adds their parts.
        warps: warps of a program.
        stages: depth of its pipeline: blocks on their way are one less.
        overlap: the second kernel starts while the first drains (Hopper and later).
    """

    block: int = 64
    splits: int = 8
    warps: int = 4
    stages: int = 3
    overlap: bool = True


def padded(size: int) -> int:
    """Return the power of two that a kernel computes a width with, at least 16."""
    return max(16, 1 << (size - 1).bit_length())


@lru_cache(maxsize=4096)
def decode_config(
    pairs: int, keys: int, *, rows: int, rank: int, width: int, itemsize: int, multiprocessors: int
) -> DecodeConfig:
    """Return sizes for a decode step.

    Args:
        pairs: B G.
        keys: U.
        rows: T H / G.
        rank, width: R and F.
        itemsize: bytes of an element of the cache.
        multiprocessors: of the device.
    """
    key_bytes = (padded(rank) + padded(width)) * itemsize
    block, stages = 64, 3
    if (stages - 1) * block * key_bytes < ON_THEIR_WAY_BYTES:
        block, stages = (LARGEST_BLOCK, stages) if rows <= FEW_ROWS else (block, MOST_STAGES)
    while block > 16 and _shared(block, stages, key_bytes) > SHARED_BYTES // 2:
        block //= 2
    resident = min(MOST_RESIDENT, max(1, SHARED_BYTES // _shared(block, stages, key_bytes)))
    splits = even_splits(pairs, min(-(-keys // block), MOST_SPLITS), resident * multiprocessors)
    return DecodeConfig(block, splits, 8 if padded(width) > 256 else 4, stages)


@lru_cache(maxsize=4096)
def even_splits(pairs: int, most: int, slots: int) -> int:
    """Return the fewest splits, 1 to `most`, that take at most 5 % more time than the best number.

    Time: programs run in waves of `slots`, and a program reads one part of `splits` of the keys.
    """
    times = [-(-pairs * splits // slots) / splits for splits in range(1, max(most, 1) + 1)]
    return next(i for i, time in enumerate(times, 1) if time <= 1.05 * min(times))


def _shared(block: int, stages: int, key_bytes: int) -> int:
    return (stages - 1) * block * key_bytes + SCRATCH_BYTES + RESERVED_BYTES
