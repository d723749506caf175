"""out = activation(p1 b1 + bias1) * (p2 b2 + bias2): the two wide factors of the product are never written.

Letters: T tokens, E output features, R rank.
"""

import triton
import triton.language as tl

from narrows.kernels.triton.device.expand import expand_tile, store_tile
from narrows.kernels.triton.device.order import after
from narrows.kernels.triton.device.outer import activate


@triton.jit(do_not_specialize=["tokens"])
def gated_kernel(
    p,
    gate_b,
    up_b,
    gate_bias,
    up_bias,
    out,
    tokens,
    columns,
    up_first,
    p_stride,
    part_stride,
    gate_stride,
    gate_inner,
    up_stride,
    up_inner,
    GATE_RANK: tl.constexpr,
    UP_RANK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
    HAS_GATE_BIAS: tl.constexpr,
    HAS_UP_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    OVERLAP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write one tile; p holds both projections side by side, the second from column `up_first`."""
    num_n = tl.cdiv(columns, BLOCK_N)
    tile_m = tl.program_id(0) // num_n
    tile_n = tl.program_id(0) % num_n
    after(OVERLAP)
    opening = expand_tile(
        p, gate_b, gate_bias, tile_m, tile_n, tokens, columns, p_stride, part_stride, gate_stride, gate_inner,
        GATE_RANK, BLOCK_M, BLOCK_N, BLOCK_K, PARTS, HAS_GATE_BIAS, PRECISION,
    )  # fmt: skip
    values = expand_tile(
        p + up_first, up_b, up_bias, tile_m, tile_n, tokens, columns, p_stride, part_stride, up_stride, up_inner,
        UP_RANK, BLOCK_M, BLOCK_N, BLOCK_K, PARTS, HAS_UP_BIAS, PRECISION,
    )  # fmt: skip
    store_tile(out, activate(opening, ACTIVATION) * values, tile_m, tile_n, tokens, columns, BLOCK_M, BLOCK_N)
