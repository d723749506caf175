"""p_h = x w_h^T for heads that do not follow each other in memory: factors cut to a smaller rank, as a view.

Letters: T tokens, D features, H heads, N rows of w in a head (R, or 2R with the rows of a and b in turn), S split.
"""

import triton
import triton.language as tl

from narrows.kernels.triton.device.project import project_tile
from narrows.kernels.triton.device.put import put


@triton.jit(do_not_specialize=["tokens"])
def project_heads_kernel(
    x,
    w,
    out,
    tokens,
    features,
    rows,
    x_stride,
    w_head,
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
    """Write what `project_kernel` writes for the H N rows of all heads one after the other.

    Axes of the grid: tiles of one head, parts, heads.
    """
    num_n = tl.cdiv(rows, BLOCK_N)
    tile_n = tl.program_id(0) % num_n
    tile_m = tl.program_id(0) // num_n
    head = tl.program_id(2)
    w += head.to(tl.int64) * w_head
    total = project_tile(
        x, w, tile_m, tile_n, tokens, features, rows, x_stride, w_stride,
        BLOCK_M, BLOCK_N, BLOCK_K, IS_EVEN, OVERLAP, PRECISION, STEPS,
    )  # fmt: skip
    out += tl.program_id(1).to(tl.int64) * split_stride
    if IS_PAIR:
        half = rows // 2
        put(out + head * half, total, tile_m, tile_n, tokens, rows, out_stride, tl.num_programs(2) * half,
            BLOCK_M, BLOCK_N, True)  # fmt: skip
    else:
        put(out + head * rows, total, tile_m, tile_n, tokens, rows, out_stride, 0, BLOCK_M, BLOCK_N, False)
