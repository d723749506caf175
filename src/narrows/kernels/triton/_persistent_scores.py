"""The persistent scores kernel from the host's side: its sizes, what it refuses, its launch.

Letters: T tokens, U other tokens, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from narrows.errors import ImplementationError
from narrows.kernels.triton._launch import ALIGNMENT, current_stream, note

if TYPE_CHECKING:
    from torch import Tensor

    from narrows.kernels.triton._support import Order

SHARED_BYTES = 228 << 10  # of a Hopper multiprocessor, of which every program on it takes RESERVED_BYTES more
RESERVED_BYTES = 1 << 10
WIDEST_INNER = 256  # elements of one wgmma operand's rank; a larger rank, or one that is no power of two, is chunked
CHUNK = 64
MOST_LAUNCHES = 1024  # kept; one holds a few hundred bytes, and the oldest goes first
DTYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class PersistentConfig:
    """One way to launch the persistent scores kernel.

    Attributes:
        m, n: rows and columns of a tile, powers of two from 64 to 256.
        stages: Q tiles in flight.
        staging: finished tiles that wait in shared memory for their TMA store; 0: plain stores from registers.
        p_buffers: P tiles held.
        warps: of a program, 4 or 8.
        programs: of one multiprocessor.
        ahead: the next tile's matmul is started before a tile is staged and stored.
        order: a program's tiles are neighbours in a row ("sweep": P is loaded once a row), or a grid apart ("strided").
    """

    m: int = 128
    n: int = 128
    stages: int = 4
    staging: int = 2
    p_buffers: int = 2
    warps: int = 8
    programs: int = 1
    ahead: bool = True
    order: Literal["sweep", "strided"] = "sweep"

    def shared_bytes(self, rank: int) -> int:
        """Return the shared memory that one program takes at this rank, for a type of 2 bytes."""
        inner, chunks = inner_block(rank)
        operands = (self.p_buffers * self.m + self.stages * self.n) * inner * chunks
        barriers = sum(16 * -(-count // 2) for count in (self.p_buffers, self.stages))
        return 2 * (operands + max(self.staging, 1) * self.m * self.n) + barriers

    def fits(self, rank: int) -> bool:
        """Return whether `programs` programs fit one multiprocessor's shared memory at this rank."""
        return self.programs * (self.shared_bytes(rank) + RESERVED_BYTES) <= SHARED_BYTES


def inner_block(rank: int) -> tuple[int, int]:
    """Return the inner size of one load and the number of loads that cover a rank; TMA fills the rest with zeros."""
    power = max(16, 1 << (rank - 1).bit_length())
    if power == rank <= WIDEST_INNER or power <= CHUNK:
        return power, 1
    return CHUNK, -(-rank // CHUNK)


def refuses_scores(p_TR: Tensor, q_UR: Tensor, out_TU: Tensor, config: PersistentConfig) -> str:
    """Return why `launch_scores` cannot run these tensors with these sizes; empty when it can."""
    if p_TR.dtype not in DTYPES or not p_TR.dtype == q_UR.dtype == out_TU.dtype:
        return f"p {p_TR.dtype}, q {q_UR.dtype} and out {out_TU.dtype} must all be bfloat16 or all float16"
    shapes = f"p {tuple(p_TR.shape)}, q {tuple(q_UR.shape)} and out {tuple(out_TU.shape)}"
    if not p_TR.ndim == q_UR.ndim == 2 or p_TR.shape[1] != q_UR.shape[1] or 0 in p_TR.shape + q_UR.shape:
        return f"{shapes} must be (T, R), (U, R) and (T, U), none of them empty"
    if out_TU.shape != (p_TR.shape[0], q_UR.shape[0]):
        return f"{shapes} must be (T, R), (U, R) and (T, U)"
    rank = p_TR.shape[1]
    if not config.fits(rank):
        each = config.shared_bytes(rank) + RESERVED_BYTES
        return f"{config} takes {config.programs} x {each} of {SHARED_BYTES} bytes of shared memory at rank {rank}"
    return _refuses_strides(p_TR, q_UR, out_TU, config)


def _refuses_strides(p_TR: Tensor, q_UR: Tensor, out_TU: Tensor, config: PersistentConfig) -> str:
    if _is_transposed(p_TR) != _is_transposed(q_UR) or 1 not in p_TR.stride() or 1 not in q_UR.stride():
        return f"p and q, strides {p_TR.stride()} and {q_UR.stride()}, must both be contiguous in R, or both in T"
    if out_TU.stride(1) != 1:
        return f"out has strides {out_TU.stride()}: its last must be 1"
    for name, tensor in (("p", p_TR), ("q", q_UR), *((("out", out_TU),) if config.staging else ())):
        outer = max(tensor.stride())
        if (outer * tensor.element_size()) % ALIGNMENT:
            return f"{name}: TMA needs rows {ALIGNMENT} bytes apart or a multiple; their stride is {outer} elements"
        if tensor.data_ptr() % ALIGNMENT:
            return f"{name}: TMA needs an address that {ALIGNMENT} divides; it is {tensor.data_ptr():#x}"
    return ""


def launch_scores(
    p_TR: Tensor,
    q_UR: Tensor,
    out_TU: Tensor,
    *,
    config: PersistentConfig,
    scale: float | None = None,
    causal: bool = False,
    overlap: Order = "",
    stream: int | None = None,
) -> None:
    """Write scale p q^T into `out_TU`.

    Args:
        p_TR, q_UR: contiguous in R, or both in their rows (views of p^T and q^T); bfloat16 or float16.
        out_TU: contiguous in U, of the same type.
        config: sizes.
        scale: default 1.
        causal: -inf where the column is right of the row.
        overlap: how it follows the kernel before it ("wait" and "early": programmatic dependent launch).
        stream: handle of the current stream, on the current device; default: asked of torch.

    Raises:
        ImplementationError: these tensors cannot be run; the text has the reason.
    """
    if stream is None:
        stream = current_stream(out_TU.device)
    key = (
        out_TU.device.index, p_TR.dtype, p_TR.shape, q_UR.shape, p_TR.stride(), q_UR.stride(), out_TU.stride(),
        config, scale, causal, overlap,
    )  # fmt: skip
    launch = _launches.get(key)
    if launch is None:
        _refuse(p_TR, q_UR, out_TU, config)
        launch = _Scores(p_TR, out_TU, config, scale=scale, causal=causal, overlap=overlap)
        with _lock:
            if len(_launches) >= MOST_LAUNCHES:
                del _launches[next(iter(_launches))]
            _launches[key] = launch
    elif (p_TR.data_ptr() | q_UR.data_ptr() | out_TU.data_ptr()) % ALIGNMENT:
        _refuse(p_TR, q_UR, out_TU, config)
    launch(stream, p_TR, q_UR, out_TU)


def _refuse(p_TR: Tensor, q_UR: Tensor, out_TU: Tensor, config: PersistentConfig) -> None:
    if reason := refuses_scores(p_TR, q_UR, out_TU, config):
        raise ImplementationError(f"the persistent scores kernel cannot run this: {reason}.")


def _is_transposed(tensor: Tensor) -> bool:
    return tensor.stride(1) != 1


class _Box(NamedTuple):
    """What Triton's launcher reads of a tensor descriptor."""

    base: Tensor
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str = "zero"


class _Scores:
    """One launch with everything fixed but the addresses of p, q and out."""

    def __init__(
        self,
        p_TR: Tensor,
        out_TU: Tensor,
        config: PersistentConfig,
        *,
        scale: float | None,
        causal: bool,
        overlap: Order,
    ) -> None:
        from narrows.kernels.triton.device.scores_persistent import scores_persistent_kernel

        self._function = scores_persistent_kernel
        self._is_transposed = _is_transposed(p_TR)
        self._is_staged = config.staging > 0
        rows, columns = out_TU.shape
        tiles = -(-rows // config.m) * -(-columns // config.n)
        self._grid = (min(_multiprocessors(out_TU.device.index) * config.programs, tiles), 1, 1)
        self._scalars = (rows, columns, out_TU.stride(0), 1.0 if scale is None else scale)
        self._blocks = descriptor_blocks(config, p_TR.shape[1], p_TR.dtype, is_transposed=self._is_transposed)
        self._constants = constants(config, p_TR.shape[1]) | {
            "UNIT": gcd(columns, out_TU.stride(0), 8),
            "IS_TRANSPOSED": self._is_transposed,
            "HAS_SCALE": scale is not None,
            "IS_CAUSAL": causal,
            "OVERLAP": overlap,
        }
        names = scores_persistent_kernel.arg_names
        self._rest = (*self._scalars, *(self._constants[name] for name in names if name in self._constants))
        self._options = {"num_warps": config.warps, "launch_pdl": bool(overlap)}
        self._kernel: Any = None

    def __call__(self, stream: int, p_TR: Tensor, q_UR: Tensor, out_TU: Tensor) -> None:
        """Run on the current device and on `stream`, which must be its current stream."""
        note(None)
        if self._is_transposed:
            p_TR, q_UR = p_TR.t(), q_UR.t()
        if self._kernel is None or out_TU.data_ptr() % ALIGNMENT:
            self._first(p_TR, q_UR, out_TU)
            return
        out = _Box(out_TU, out_TU.shape, out_TU.stride()) if self._is_staged else out_TU.data_ptr()
        p, q = _Box(p_TR, p_TR.shape, p_TR.stride()), _Box(q_UR, q_UR.shape, q_UR.stride())
        kernel = self._kernel
        kernel.run(
            *self._grid, stream, kernel.function, kernel.packed_metadata, None, None, None, p, q, out, *self._rest
        )

    def _first(self, *tensors: Tensor) -> None:
        """Compile, or find compiled, and run; keep the handle."""
        from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

        arguments = [
            TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), *block)
            if (index < 2 or self._is_staged)
            else tensor
            for index, (tensor, block) in enumerate(zip(tensors, self._blocks, strict=True))
        ]
        kernel = self._function[self._grid](*arguments, *self._scalars, **self._constants, **self._options)
        if tensors[2].data_ptr() % ALIGNMENT == 0:
            self._kernel = kernel


_launches: dict[tuple[Any, ...], _Scores] = {}
_lock = Lock()


def descriptor_blocks(
    config: PersistentConfig, rank: int, dtype: torch.dtype, *, is_transposed: bool
) -> list[tuple[list[int], Any]]:
    """Return the block shape and the shared-memory layout of the descriptors of p, q and out."""
    from triton.experimental.gluon import language as gl

    element = gl.bfloat16 if dtype == torch.bfloat16 else gl.float16
    inner, _ = inner_block(rank)
    operands = [[inner, size] if is_transposed else [size, inner] for size in (config.m, config.n)]
    blocks = [*operands, [config.m, config.n]]
    return [(block, gl.NVMMASharedLayout.get_default_for(block, element)) for block in blocks]


def constants(config: PersistentConfig, rank: int) -> dict[str, Any]:
    """Return the kernel's compile-time values that the sizes decide."""
    from triton.experimental.gluon import language as gl

    warps_n = max(1, config.warps * 16 // config.m)  # a warp computes at least 16 rows
    lanes_n = min(32, config.n // 8)  # a thread stores 8 elements, 16 bytes
    return {
        "BLOCK_M": config.m,
        "BLOCK_N": config.n,
        "CHUNKS": inner_block(rank)[1],
        "P_BUFFERS": config.p_buffers,
        "STAGES": config.stages,
        "STAGING": config.staging,
        "IS_AHEAD": config.ahead,
        "IS_SWEEP": config.order == "sweep",
        "MMA": gl.NVMMADistributedLayout([3, 0], [config.warps // warps_n, warps_n], [16, config.n // warps_n, 16]),
        "WRITE": gl.BlockedLayout([1, 8], [32 // lanes_n, lanes_n], [config.warps, 1], [1, 0]),
    }


@lru_cache(maxsize=16)
def _multiprocessors(device: int) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
