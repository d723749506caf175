"""One tile of p b with the rank as inner dimension, for kernels that compute several of them.

Letters: T tokens, E output features, R rank, S parts of a split projection.
"""

import triton
import triton.language as tl


@triton.jit
def expand_tile(
    p,
    b,
    bias,
    tile_m,
    tile_n,
    tokens,
    columns,
    p_stride,
    part_stride,
    b_stride,
    b_inner,
    RANK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return tile (m, n) of p b + bias in float32.

    b: element (r, e) lies at e * b_stride + r * b_inner.
    PARTS > 1: p is a float32 stack whose sum, rounded to b's type, is the projection.
    """
    offs_m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m = offs_m[:, None] < tokens
    in_n = offs_n[None, :] < columns
    p_row = p + offs_m[:, None].to(tl.int64) * p_stride
    b_column = b + offs_n[None, :].to(tl.int64) * b_stride
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    WHOLE: tl.constexpr = RANK % BLOCK_K == 0
    for start in range(0, RANK, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        p_in = in_m if WHOLE else in_m & (offs_k[None, :] < RANK)
        b_in = in_n if WHOLE else in_n & (offs_k[:, None] < RANK)
        left_at = p_row + offs_k[None, :]
        left = tl.load(left_at, mask=p_in, other=0.0)
        for _ in tl.static_range(1, PARTS):
            left_at += part_stride  # in steps: a product of 32-bit numbers could overflow
            left += tl.load(left_at, mask=p_in, other=0.0)
        right = tl.load(b_column + offs_k[:, None].to(tl.int64) * b_inner, mask=b_in, other=0.0)
        total = tl.dot(left.to(right.dtype), right, total, input_precision=PRECISION)
    if HAS_BIAS:
        total += tl.load(bias + offs_n, mask=offs_n < columns, other=0.0).to(tl.float32)[None, :]
    return total


@triton.jit
def store_tile(out, total, tile_m, tile_n, tokens, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Store tile (m, n) of a contiguous (tokens, columns) in out's type."""
    offs_m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    offs_n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    at = out + offs_m.to(tl.int64) * columns + offs_n
    tl.store(at, total.to(out.dtype.element_ty), mask=(offs_m < tokens) & (offs_n < columns))
