"""out_i = p_i b_i + bias_i for up to three members in one launch: the expansions of q, k and v.

Letters: T tokens, E output features, R rank.
"""

import triton
import triton.language as tl

from narrows.kernels.triton.device.expand import expand_tile, store_tile
from narrows.kernels.triton.device.order import after


@triton.jit
def _member(
    p,
    b,
    bias,
    out,
    tile,
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
    num_n = tl.cdiv(columns, BLOCK_N)
    total = expand_tile(
        p, b, bias, tile // num_n, tile % num_n, tokens, columns, p_stride, part_stride, b_stride, b_inner,
        RANK, BLOCK_M, BLOCK_N, BLOCK_K, PARTS, HAS_BIAS, PRECISION,
    )  # fmt: skip
    store_tile(out, total, tile // num_n, tile % num_n, tokens, columns, BLOCK_M, BLOCK_N)


@triton.jit(do_not_specialize=["tokens"])
def grouped_kernel(
    p,
    b0,
    b1,
    b2,
    bias0,
    bias1,
    bias2,
    out0,
    out1,
    out2,
    tokens,
    columns0,
    columns1,
    columns2,
    first0,
    first1,
    first2,
    p_stride,
    part_stride,
    stride0,
    stride1,
    stride2,
    inner0,
    inner1,
    inner2,
    RANK0: tl.constexpr,
    RANK1: tl.constexpr,
    RANK2: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
    HAS_BIAS0: tl.constexpr,
    HAS_BIAS1: tl.constexpr,
    HAS_BIAS2: tl.constexpr,
    OVERLAP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write one tile of one member. Programs: the tiles of member 0, then of 1, then of 2.

    p holds the members' projections side by side, each from its column `first`. RANK1, RANK2 = 0: no such member.
    """
    num_m = tl.cdiv(tokens, BLOCK_M)
    pid = tl.program_id(0)
    end0 = num_m * tl.cdiv(columns0, BLOCK_N)
    after(OVERLAP)
    if pid < end0:
        _member(
            p + first0, b0, bias0, out0, pid, tokens, columns0, p_stride, part_stride, stride0, inner0,
            RANK0, BLOCK_M, BLOCK_N, BLOCK_K, PARTS, HAS_BIAS0, PRECISION,
        )  # fmt: skip
    if RANK1 > 0:
        end1 = end0 + num_m * tl.cdiv(columns1, BLOCK_N)
        if (pid >= end0) & (pid < end1):
            _member(
                p + first1, b1, bias1, out1, pid - end0, tokens, columns1, p_stride, part_stride, stride1, inner1,
                RANK1, BLOCK_M, BLOCK_N, BLOCK_K, PARTS, HAS_BIAS1, PRECISION,
            )  # fmt: skip
        if RANK2 > 0:
            if pid >= end1:
                _member(
                    p + first2, b2, bias2, out2, pid - end1, tokens, columns2, p_stride, part_stride, stride2, inner2,
                    RANK2, BLOCK_M, BLOCK_N, BLOCK_K, PARTS, HAS_BIAS2, PRECISION,
                )  # fmt: skip
