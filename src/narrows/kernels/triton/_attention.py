"""Launches of a decode step: every key and value read once, then the parts of the splits added.

Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a value, M = T H / G.
"""

from __future__ import annotations

import inspect
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from narrows.kernels._attention_config import DecodeConfig, decode_config, padded
from narrows.kernels.triton._launch import ALIGNMENT, current_stream
from narrows.kernels.triton._support import can_overlap, matmul_precision

if TYPE_CHECKING:
    from torch import Tensor

LOG2_E = 1.4426950408889634
COMBINED_SPLITS = 16  # parts that one program of the second kernel loads at a time


class VaryingLaunch:
    """A kernel whose numbers and programs change from call to call, as a growing cache changes them.

    None of the numbers is specialised, so that one compiled kernel serves all of them.

    Args:
        function: a `triton.jit` function: tensors, then numbers, then compile-time values.
        constants: compile-time values by name, and `num_warps`, `num_stages`, `launch_pdl`.
    """

    def __init__(self, function: Any, constants: dict[str, Any]) -> None:
        self._function, self._constants = function, constants
        names = inspect.signature(function.fn).parameters
        self._rest = tuple(constants[name] for name in names if name in constants)
        self._kernel: Any = None

    def __call__(
        self, programs: int, stream: int, tensors: tuple[Tensor | None, ...], numbers: tuple[int | float, ...]
    ) -> None:
        """Run on the current device and on `stream`, which must be its current stream."""
        addresses = [0 if t is None else t.data_ptr() for t in tensors]
        is_aligned = not any(address % ALIGNMENT for address in addresses)
        kernel = self._kernel
        if kernel is not None and is_aligned:
            # As triton.JITFunction.run does, without binding and specialising every argument again.
            kernel.run(
                programs, 1, 1, stream, kernel.function, kernel.packed_metadata, None, None, None,
                *addresses, *numbers, *self._rest,
            )  # fmt: skip
            return
        kernel = self._function[programs, 1, 1](*tensors, *numbers, **self._constants)
        if is_aligned and hasattr(kernel, "packed_metadata"):
            self._kernel = kernel


def decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
    lengths: Tensor | None = None,
    config: DecodeConfig | None = None,
) -> Tensor:
    """Return softmax(q k^T scale + mask) v, (B, H, T, F), contiguous.

    Args:
        q: (B, H, T, R). k: (B, G, U, R). v: (B, G, U, F). Unit inner stride, any others.
        scale: of the scores.
        mask: broadcasts to (B, H, T, U); bool (False takes no part) or added.
        causal: the last query sees the last key.
        lengths: (B,), whole numbers: keys that count; the others are not read.
        config: default: by formula.
    """
    if q.is_cuda and q.device.index != torch.cuda.current_device():
        with torch.cuda.device(q.device):
            return decode(q, k, v, scale=scale, mask=mask, causal=causal, lengths=lengths, config=config)
    (B, H, T, R), (G, U), F = q.shape, k.shape[1:3], v.shape[-1]
    if config is None:
        found = multiprocessors(q.device)
        rows, size = T * H // G, q.element_size()
        config = decode_config(B * G, U, rows=rows, rank=R, width=F, itemsize=size, multiprocessors=found)
    lengths = None if lengths is None else lengths.contiguous()
    k_unit, k_strides = row_strides(k)
    v_unit, v_strides = row_strides(v)
    kind, mask_strides = _mask(mask, (B, H, T, U))
    is_whole, overlap = config.splits == 1, config.overlap and config.splits > 1 and can_overlap(q.device)
    split = _split_launch(
        R, F, k_unit, v_unit, padded(T * H // G), kind, causal, None if lengths is None else lengths.dtype, is_whole,
        overlap, matmul_precision(q.dtype), (config.block, config.warps, config.stages), q.dtype, q.device,
    )  # fmt: skip
    numbers = (U, config.splits, G, H // G, T, *q.stride()[:3], *k_strides, *v_strides, *mask_strides, scale * LOG2_E)
    given = (q, k, v, mask, lengths)
    if is_whole:
        out = q.new_empty((B, H, T, F))
        split(B * G, current_stream(q.device), (*given, None, out), numbers)
        return out
    return _in_parts(split, given, numbers, config.splits, F, overlap=overlap)


def _in_parts(
    split: VaryingLaunch,
    given: tuple[Tensor | None, ...],
    numbers: tuple[int | float, ...],
    splits: int,
    width: int,
    *,
    overlap: bool,
) -> Tensor:
    """Return the result of a launch that leaves parts, after the kernel that adds them."""
    q, k = given[:2]
    assert q is not None
    assert k is not None
    (B, H, T, _), G = q.shape, k.shape[1]
    rows, stream = T * H // G, current_stream(q.device)
    out = q.new_empty((B, H, T, width))
    sums = q.new_empty((B * G * splits * 2 * rows,), dtype=torch.float32)
    parts = q.new_empty((B * G * splits * rows * width,), dtype=torch.float32)
    split(B * G * splits, stream, (*given, sums, parts), numbers)
    at_once = min(COMBINED_SPLITS, 1 << (splits - 1).bit_length())
    combine = _combine_launch(width, at_once, overlap, q.dtype, q.device)
    combine(B * G * rows, stream, (sums, parts, out), (splits, rows))
    return out


def row_strides(cache: Tensor) -> tuple[int, tuple[int, int, int]]:
    """Return (unit, strides of batch, head and row in units) of a cache (B, G, U, width).

    The unit is what all of them are multiples of, at most 16 bytes: a load cannot be wider than that.
    Strides of dimensions of size 1 lead nowhere and count as 0.
    """
    strides = [stride if size > 1 else 0 for size, stride in zip(cache.shape[:3], cache.stride()[:3], strict=True)]
    unit = math.gcd(*strides, ALIGNMENT // cache.element_size())
    return unit, (strides[0] // unit, strides[1] // unit, strides[2] // unit)


@lru_cache(maxsize=64)
def multiprocessors(device: torch.device) -> int:
    """Return how many multiprocessors a device has; 1 where Triton's interpreter runs."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _mask(mask: Tensor | None, shape: tuple[int, int, int, int]) -> tuple[str, tuple[int, ...]]:
    """Return what the mask does and its strides over the scores."""
    if mask is None:
        return "", (0, 0, 0, 0)
    return "bool" if mask.dtype == torch.bool else "add", tuple(mask.expand(shape).stride())


# Every argument is part of the key. A compiled handle belongs to its device, so the device is one too.
@lru_cache(maxsize=1024)
def _split_launch(  # noqa: PLR0917
    rank: int,
    width: int,
    k_unit: int,
    v_unit: int,
    block_m: int,
    mask: str,
    causal: bool,
    lengths: torch.dtype | None,
    is_whole: bool,
    overlap: bool,
    precision: str,
    sizes: tuple[int, int, int],
    dtype: torch.dtype,  # noqa: ARG001
    device: torch.device,  # noqa: ARG001
) -> VaryingLaunch:
    from narrows.kernels.triton.device.attention import attention_kernel

    block, warps, stages = sizes
    constants = {
        "RANK": rank,
        "WIDTH": width,
        "K_ALIGN": k_unit,
        "V_ALIGN": v_unit,
        "BLOCK_M": block_m,
        "BLOCK_N": block,
        "BLOCK_R": padded(rank),
        "BLOCK_F": padded(width),
        "MASK": mask,
        "IS_CAUSAL": causal,
        "HAS_LENGTHS": lengths is not None,
        "IS_WHOLE": is_whole,
        "OVERLAP": overlap,
        "PRECISION": precision,
        "num_warps": warps,
        "num_stages": stages,
    }
    return VaryingLaunch(attention_kernel, constants)


@lru_cache(maxsize=256)
def _combine_launch(
    width: int,
    block_s: int,
    overlap: bool,
    dtype: torch.dtype,  # noqa: ARG001
    device: torch.device,  # noqa: ARG001
) -> VaryingLaunch:
    from narrows.kernels.triton.device.combine import combine_kernel

    constants = {
        "WIDTH": width,
        "BLOCK_S": block_s,
        "BLOCK_F": padded(width),
        "OVERLAP": overlap,
        "num_warps": 4,
        "launch_pdl": overlap,
    }
    return VaryingLaunch(combine_kernel, constants)
