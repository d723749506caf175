"""One decode step of attention over a part of the keys: scores, softmax and values in one pass over the cache.

Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a value, S splits.
M = T H / G rows share a key head: row m is query m % T of head m // T of the group.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents

NUMBERS = [
    "keys", "splits", "groups", "repeats", "queries",
    "q_batch", "q_head", "q_row",
    "k_batch", "k_head", "k_row",
    "v_batch", "v_head", "v_row",
    "mask_batch", "mask_head", "mask_row", "mask_column",
    "scale",
]  # fmt: skip


@triton.jit(do_not_specialize=NUMBERS)
def attention_kernel(
    q,
    k,
    v,
    mask,
    lengths,
    sums,
    parts,
    keys: tl.int32,
    splits: tl.int32,
    groups: tl.int32,
    repeats: tl.int32,
    queries: tl.int32,
    q_batch: tl.int64,
    q_head: tl.int64,
    q_row: tl.int64,
    k_batch: tl.int64,
    k_head: tl.int64,
    k_row: tl.int64,
    v_batch: tl.int64,
    v_head: tl.int64,
    v_row: tl.int64,
    mask_batch: tl.int64,
    mask_head: tl.int64,
    mask_row: tl.int64,
    mask_column: tl.int64,
    scale: tl.float32,
    RANK: tl.constexpr,
    WIDTH: tl.constexpr,
    K_ALIGN: tl.constexpr,
    V_ALIGN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_F: tl.constexpr,
    MASK: tl.constexpr,
    IS_CAUSAL: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    OVERLAP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write one split's largest score, its sum of exponentials and its sum of values, or the finished rows.

    Scores are kept in base 2: `scale` has log2(e) in it. The strides of k and v count K_ALIGN and
    V_ALIGN elements, so that the compiler sees how wide a load may be.
    IS_WHOLE: there is one split, and `parts` is the result (B, H, T, F). Else `parts` is float32
    (B G, S, M, F) and `sums` (B G, S, 2, M).
    MASK: "", "bool" (False takes no part) or "add".
    """
    split = tl.program_id(0) % splits
    pair = tl.program_id(0) // splits
    batch = (pair // groups).to(tl.int64)
    group = (pair % groups).to(tl.int64)
    rows = queries * repeats
    offs_m = tl.arange(0, BLOCK_M)
    offs_n = tl.arange(0, BLOCK_N)
    offs_r = tl.arange(0, BLOCK_R)
    offs_f = tl.arange(0, BLOCK_F)
    in_m = offs_m < rows
    query = offs_m % queries
    head = group * repeats + offs_m // queries
    if OVERLAP:
        gdc_launch_dependents()
    length = keys
    if HAS_LENGTHS:
        length = tl.minimum(tl.load(lengths + batch).to(tl.int32), keys)
        length = tl.maximum(length, 0)
    # In whole blocks, spread so that no split has two more than another.
    blocks = tl.cdiv(length, BLOCK_N).to(tl.int64)
    first = (blocks * split // splits).to(tl.int32) * BLOCK_N
    last = tl.minimum((blocks * (split + 1) // splits).to(tl.int32) * BLOCK_N, length)

    q_tile = q + batch * q_batch + (head * q_head + query * q_row)[:, None] + offs_r[None, :]
    q_in = in_m[:, None] if RANK == BLOCK_R else in_m[:, None] & (offs_r[None, :] < RANK)
    left = tl.load(q_tile, mask=q_in, other=0.0)
    k_tile = k + (batch * k_batch + group * k_head + first * k_row) * K_ALIGN
    k_tile += (offs_n.to(tl.int64) * k_row)[None, :] * K_ALIGN + offs_r[:, None]
    v_tile = v + (batch * v_batch + group * v_head + first * v_row) * V_ALIGN
    v_tile += (offs_n.to(tl.int64) * v_row)[:, None] * V_ALIGN + offs_f[None, :]
    mask_tile = mask
    if MASK != "":
        mask_tile += batch * mask_batch + (head * mask_head + query * mask_row)[:, None]
        mask_tile += (first + offs_n.to(tl.int64))[None, :] * mask_column

    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    # Added up after the loop: a sum over keys crosses warps, and one in the loop costs it 3 of 9 barriers.
    totals = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    values = tl.zeros((BLOCK_M, BLOCK_F), tl.float32)
    for start in range(first, last, BLOCK_N):
        in_n = start + offs_n < last
        k_in = in_n[None, :] if RANK == BLOCK_R else in_n[None, :] & (offs_r[:, None] < RANK)
        right = tl.load(k_tile, mask=k_in, other=0.0)
        scores = tl.dot(left, right, input_precision=PRECISION) * scale
        if MASK != "":
            value = tl.load(mask_tile, mask=in_m[:, None] & in_n[None, :], other=0)
            if MASK == "bool":
                scores = tl.where(value != 0, scores, float("-inf"))
            else:
                value = value.to(tl.float32)
                # Largest negative numbers stay finite in base 2; not a maximum, which would drop NaN.
                value = tl.where((value < -1e38) & (value != float("-inf")), -1e38, value)
                scores += value * 1.4426950408889634
            mask_tile += BLOCK_N * mask_column
        seen = in_n[None, :]
        if IS_CAUSAL:
            seen = seen & (start + offs_n[None, :] <= length - queries + query[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        # A row that saw no key yet: -inf minus -inf is NaN.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(top - base)
        totals = totals * shrink[:, None] + weights
        v_in = in_n[:, None] if WIDTH == BLOCK_F else in_n[:, None] & (offs_f[None, :] < WIDTH)
        # Masked, and not only weighted with 0: what lies beyond the length may be NaN.
        right = tl.load(v_tile, mask=v_in, other=0.0)
        values = tl.dot(weights.to(right.dtype), right, values * shrink[:, None], input_precision=PRECISION)
        top = higher
        k_tile += BLOCK_N * k_row * K_ALIGN
        v_tile += BLOCK_N * v_row * V_ALIGN

    total = tl.sum(totals, 1)
    at_m = offs_m.to(tl.int64)
    inside = in_m[:, None] & (offs_f[None, :] < WIDTH)
    if IS_WHOLE:
        # A row that saw no key is 0.
        values = values / tl.where(total == 0.0, 1.0, total)[:, None]
        at = parts + (pair.to(tl.int64) * rows + at_m)[:, None] * WIDTH + offs_f[None, :]
        tl.store(at, values.to(parts.dtype.element_ty), mask=inside)
    else:
        part = pair.to(tl.int64) * splits + split
        tl.store(sums + part * 2 * rows + at_m, top, mask=in_m)
        tl.store(sums + (part * 2 + 1) * rows + at_m, total, mask=in_m)
        tl.store(parts + (part * rows + at_m)[:, None] * WIDTH + offs_f[None, :], values, mask=inside)
