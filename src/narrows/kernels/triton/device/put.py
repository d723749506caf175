"""How a tile of a projection is stored: in place, or with the columns of a pair put apart."""

import triton
import triton.language as tl


@triton.jit
def put(
    out,
    total,
    tile_m,
    tile_n,
    tokens,
    rows,
    out_stride,
    second,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    IS_PAIR: tl.constexpr,
):
    """Store tile (m, n) of (tokens, rows) in out's type; of a pair, odd columns begin at column `second`."""
    offs_m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    out_row = out + offs_m.to(tl.int64) * out_stride
    if IS_PAIR:
        p, q = tl.split(tl.reshape(total, (BLOCK_M, BLOCK_N // 2, 2)))
        half = tile_n * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)[None, :]
        inside = (offs_m < tokens) & (half < rows // 2)
        tl.store(out_row + half, p.to(out.dtype.element_ty), mask=inside)
        tl.store(out_row + second + half, q.to(out.dtype.element_ty), mask=inside)
    else:
        offs_n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        tl.store(out_row + offs_n, total.to(out.dtype.element_ty), mask=(offs_m < tokens) & (offs_n < rows))
