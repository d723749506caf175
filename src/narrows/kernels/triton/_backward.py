"""Both gradients of scores S = P Q^T with one pass over dS.

Letters: T tokens, U other tokens, R rank, B product of leading dimensions, S parts.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

import torch

from narrows.errors import ImplementationError
from narrows.kernels._config import Tiles
from narrows.kernels.triton._launch import Launch, current_stream
from narrows.kernels.triton._projection import reduce_launch
from narrows.kernels.triton._support import matmul_precision, unsupported

if TYPE_CHECKING:
    from torch import Tensor

MOST_BATCHES = 65535  # of one axis of a CUDA grid
PROGRAMS = 132  # that run at once on an H200, one a multiprocessor
LEAST_STEPS = 4  # steps in one part of a split: below, starting and ending a part dominate


def score_gradients(grad: Tensor, p: Tensor, q: Tensor, *, tiles: Tiles | None = None) -> tuple[Tensor, Tensor]:
    """Return dP = grad Q, (..., T, R), and dQ = grad^T P, (..., U, R), with the leading dimensions of `grad`.

    Deterministic: parts of a split are added in fixed order. Not differentiable by itself.

    Args:
        grad: (..., T, U), of the scores.
        p, q: (..., T, R) and (..., U, R); leading dimensions broadcast to those of `grad`.
        tiles: m rows or columns of dS, k inner elements, n columns of the rank; default: by formula.

    Raises:
        ImplementationError: the device or the dtype is not one that own kernels run on.
    """
    if reason := unsupported(str(grad.dtype).removeprefix("torch."), str(grad.device)):
        raise ImplementationError(f"score_gradients() cannot run this: {reason}. Use grad @ q and grad.mT @ p.")
    lead, (T, U), R = grad.shape[:-2], grad.shape[-2:], p.shape[-1]
    B = prod(lead)
    if B > MOST_BATCHES:
        raise ImplementationError(f"score_gradients() takes {MOST_BATCHES} batches at most; grad has {B}.")
    rows = B * (T + U)
    out = grad.new_empty(rows * R)
    if B * T * U == 0:
        out.zero_()
    else:
        tiles = tiles or default_tiles(T, U, R, B, grad.dtype)
        _run(tiles, grad.reshape(B, T, U), _contiguous(p, lead), _contiguous(q, lead), out)
    return out[: B * T * R].view(*lead, T, R), out[B * T * R :].view(*lead, U, R)


def default_tiles(T: int, U: int, R: int, B: int, dtype: torch.dtype) -> Tiles:
    """Return sizes by formula: about as many programs as multiprocessors, by a split where blocks do not suffice."""
    n = min(64 if dtype == torch.float32 else 128, max(16, 1 << (R - 1).bit_length()))
    m = 64 if max(T, U) > 512 else 32
    k = 32 if dtype == torch.float32 else 64
    programs = B * (-(-T // m) + -(-U // m)) * -(-R // n)
    most = min(PROGRAMS // programs, max(T, U) // (LEAST_STEPS * k))
    return Tiles(m, n, k, split=1 << (max(most, 1).bit_length() - 1))


def _contiguous(tensor: Tensor, lead: torch.Size) -> Tensor:
    return tensor.expand(*lead, *tensor.shape[-2:]).contiguous()


def _run(tiles: Tiles, grad_BTU: Tensor, p: Tensor, q: Tensor, out: Tensor) -> None:
    if grad_BTU.stride(-1) != 1:
        grad_BTU = grad_BTU.contiguous()
    B, T, U = grad_BTU.shape
    launch, reduce = _launches(
        tiles, B, T, U, p.shape[-1], grad_BTU.stride(0), grad_BTU.stride(1), grad_BTU.dtype,
        grad_BTU.device, matmul_precision(grad_BTU.dtype),
    )  # fmt: skip
    if grad_BTU.is_cuda:
        with torch.cuda.device(grad_BTU.device):
            _launch(launch, reduce, (grad_BTU, p, q), tiles.split, out)
    else:
        _launch(launch, reduce, (grad_BTU, p, q), tiles.split, out)


def _launch(launch: Launch, reduce: Launch | None, inputs: tuple[Tensor, ...], split: int, out: Tensor) -> None:
    stream = current_stream(out.device)
    if reduce is None:
        launch(stream, *inputs, out)
        return
    parts = torch.empty(split * out.numel(), dtype=torch.float32, device=out.device)
    launch(stream, *inputs, parts)
    reduce(stream, parts, None, out)


@lru_cache(maxsize=256)
def _launches(  # noqa: PLR0917 (a cache's key)
    tiles: Tiles,
    B: int,
    T: int,
    U: int,
    R: int,
    grad_batch: int,
    grad_stride: int,
    dtype: torch.dtype,  # noqa: ARG001 (of the key: a Launch is compiled for it)
    device: torch.device,  # noqa: ARG001
    precision: str,
) -> tuple[Launch, Launch | None]:
    """Return the launch for (grad, p, q, out), and above split = 1 that for (parts, None, out)."""
    from narrows.kernels.triton.device.backward import backward_kernel

    blocks = (-(-T // tiles.m) + -(-U // tiles.m)) * -(-R // tiles.n)
    rows = B * (T + U)
    scalars = (T, U, grad_batch, grad_stride, B * T * R, rows * R)
    constants = {
        "RANK": R,
        "BLOCK_M": tiles.m,
        "BLOCK_K": tiles.k,
        "BLOCK_R": tiles.n,
        "SPLIT": tiles.split,
        "PRECISION": precision,
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }
    launch = Launch(backward_kernel, (blocks, tiles.split, B), scalars, constants)
    reduce = None if tiles.split == 1 else reduce_launch(rows, R, tiles.split, overlap="")
    return launch, reduce
