"""p = x w^T, the thin projection: many input features, few rows of w, so its inner dimension is split.

Letters: T tokens, D features, N rows of w (R, or 2R with the rows of a and b in turn), S split.
"""

import triton
import triton.language as tl

from narrows.kernels.triton.device.order import after
from narrows.kernels.triton.device.put import put


@triton.jit
def project_tile(
    x,
    w,
    tile_m,
    tile_n,
    tokens,
    features,
    rows,
    x_stride,
    w_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    IS_EVEN: tl.constexpr,
    OVERLAP: tl.constexpr,
    PRECISION: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Return tile (m, n) of x w^T in float32, summed over part `program_id(1)` of the features."""
    part = tl.program_id(1)
    offs_m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    first = part * STEPS * BLOCK_K
    offs_k = first + tl.arange(0, BLOCK_K)
    in_m = offs_m[:, None] < tokens
    in_n = offs_n[None, :] < rows
    x_tile = x + offs_m[:, None].to(tl.int64) * x_stride + offs_k[None, :]
    w_tile = w + offs_n[None, :].to(tl.int64) * w_stride + offs_k[:, None]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    after(OVERLAP)
    for step in range(STEPS):
        if IS_EVEN:
            left = tl.load(x_tile, mask=in_m, other=0.0)
            right = tl.load(w_tile, mask=in_n, other=0.0)
        else:
            left_k = features - first - step * BLOCK_K
            in_k = tl.arange(0, BLOCK_K) < left_k
            left = tl.load(x_tile, mask=in_m & in_k[None, :], other=0.0)
            right = tl.load(w_tile, mask=in_n & in_k[:, None], other=0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION)
        x_tile += BLOCK_K
        w_tile += BLOCK_K
    return total


@triton.jit(do_not_specialize=["tokens"])
def project_kernel(
    x,
    w,
    out,
    tokens,
    features,
    rows,
    x_stride,
    w_stride,
    out_stride,
    split_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    IS_PAIR: tl.constexpr,
    IS_EVEN: tl.constexpr,
    OVERLAP: tl.constexpr,
    PRECISION: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Write tile (m, n) of x w^T: finished, or the sum over one part of the features, in float32.

    Tiles of a pair are put apart: even rows of w fill the first half of the columns.
    """
    num_n = tl.cdiv(rows, BLOCK_N)
    tile_n = tl.program_id(0) % num_n
    tile_m = tl.program_id(0) // num_n
    total = project_tile(
        x, w, tile_m, tile_n, tokens, features, rows, x_stride, w_stride,
        BLOCK_M, BLOCK_N, BLOCK_K, IS_EVEN, OVERLAP, PRECISION, STEPS,
    )  # fmt: skip
    out += tl.program_id(1).to(tl.int64) * split_stride
    put(out, total, tile_m, tile_n, tokens, rows, out_stride, rows // 2, BLOCK_M, BLOCK_N, IS_PAIR)
