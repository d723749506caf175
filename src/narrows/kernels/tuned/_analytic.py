"""Sizes by formula, for what nobody has measured: enough programs to fill the device, tiles that fit its memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from narrows._values import DTYPE_BYTES
from narrows.kernels._config import Config, Tiles

if TYPE_CHECKING:
    from narrows.kernels.tuned._signature import Signature

LEAST_STEPS = 2  # steps over the inner dimension in one part of a split: below, nothing is loaded ahead
MOST_PARTS = 16  # of a split: more parts take longer to add than they save
SMALLEST = 16  # a matrix instruction takes 16 rows, columns and inner elements at least


@dataclass(frozen=True, slots=True)
class Limits:
    """What the sizes depend on; the defaults are an H100's and an H200's.

    Attributes:
        num_multiprocessors: programs that run at once, one each.
        shared_bytes: that one program may take.
    """

    num_multiprocessors: int = 132
    shared_bytes: int = 227 << 10


@lru_cache(maxsize=16)
def limits(device: int) -> Limits:
    """Return the limits of a CUDA device; those of an H200 where there is none and only the interpreter runs."""
    import torch

    if not torch.cuda.is_available():
        return Limits()
    properties = torch.cuda.get_device_properties(device)
    shared = getattr(properties, "shared_memory_per_block_optin", 0)
    return Limits(int(properties.multi_processor_count), int(shared) or 48 << 10)


def analytic_config(signature: Signature, found: Limits | None = None) -> Config:
    """Return sizes for a call by formula.

    The projection splits its inner dimension until there are about as many programs as
    multiprocessors; the second matmul takes larger tiles as its result grows. Tile sizes are those that
    were best at 64 to 8192 tokens in first measurements on an H200 (bfloat16, D = 4096, rank 64).

    Args:
        signature: of the call.
        found: of the device; default: asked of it.
    """
    found = limits(signature.device) if found is None else found
    return Config(_projection(signature, found), _second(signature, found))


def _projection(signature: Signature, found: Limits) -> Tiles:
    tokens = max(signature.tokens, signature.other_tokens)
    m = 16 if tokens <= 16 else 32 if tokens <= 32 else 64
    narrow = 32 if tokens <= 128 else 64 if tokens <= 1024 else 128
    n = min(_power_above(signature.rows), narrow)
    k = _fitting_k(_widest_k(signature), m + n, signature, found)
    tiles = -(-tokens // m) * -(-signature.rows // n)
    most = min(found.num_multiprocessors // max(tiles, 1), MOST_PARTS, signature.in_features // (LEAST_STEPS * k))
    stages = _stages((m + n) * k, signature, found)
    return Tiles(m, n, k, split=_power_below(max(most, 1)), warps=_warps(m * n, signature), stages=stages)


def _second(signature: Signature, found: Limits) -> Tiles:
    tokens = signature.tokens
    m, n = (16, 32) if tokens <= 256 else (64, 32) if tokens <= 512 else (128, 64) if tokens <= 2048 else (128, 128)
    if DTYPE_BYTES[signature.dtype] == 4:
        # Without matrix instructions a tile and its operands lie in registers: larger ones spill thousands of
        # bytes (compiled for sm_90), these nothing.
        m, n = min(m, 64), min(n, 64)
    k = _fitting_k(min(_power_above(signature.rank), _widest_k(signature)), m + n, signature, found)
    return Tiles(m, n, k, warps=_warps(m * n, signature), stages=_stages((m + n) * k, signature, found))


def _widest_k(signature: Signature) -> int:
    """Return the largest inner size of a step. Products of float32 are not the matrix units': 32 fill the registers."""
    return 128 if DTYPE_BYTES[signature.dtype] == 2 else 32


def _warps(elements: int, signature: Signature) -> int:
    """Return how many warps hold a tile of so many sums; with fewer, float32 tiles spill registers to memory."""
    largest = 64 * 128 if DTYPE_BYTES[signature.dtype] == 4 else 128 * 128
    return 8 if elements >= largest else 4


def _fitting_k(wanted: int, edge: int, signature: Signature, found: Limits) -> int:
    """Return the largest inner size up to `wanted` of which two stages fit; `edge` is m + n."""
    k = wanted
    while k > SMALLEST and 2 * edge * k * DTYPE_BYTES[signature.dtype] > found.shared_bytes:
        k //= 2
    return k


def _stages(elements: int, signature: Signature, found: Limits) -> int:
    """Return how many stages of so many elements fit, 2 to 4."""
    return min(4, max(2, found.shared_bytes // (elements * DTYPE_BYTES[signature.dtype])))


def _power_above(value: int) -> int:
    """Return the smallest power of two that is not below, at least 16."""
    return max(SMALLEST, 1 << (value - 1).bit_length())


def _power_below(value: int) -> int:
    """Return the largest power of two that is not above."""
    return 1 << (value.bit_length() - 1)
