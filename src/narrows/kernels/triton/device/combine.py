"""The sum of a decode step's splits, in fixed order, so that it is the same in every run.

Letters as in `attention`: B batch, G key heads, M rows of a key head, F width of a value, S splits.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait


@triton.jit(do_not_specialize=["splits", "rows"])
def combine_kernel(
    sums,
    parts,
    out,
    splits: tl.int32,
    rows: tl.int32,
    WIDTH: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_F: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Write one finished row of out (B G, M, F) from `parts` (B G, S, M, F) and `sums` (B G, S, 2, M)."""
    pair = (tl.program_id(0) // rows).to(tl.int64)
    row = tl.program_id(0) % rows
    offs_s = tl.arange(0, BLOCK_S)
    offs_f = tl.arange(0, BLOCK_F)
    in_f = offs_f < WIDTH
    top = float("-inf")
    total = 0.0
    values = tl.zeros((BLOCK_F,), tl.float32)
    if OVERLAP:
        gdc_wait()
    for start in range(0, splits, BLOCK_S):
        in_s = start + offs_s < splits
        part = pair * splits + start + offs_s
        part_top = tl.load(sums + part * 2 * rows + row, mask=in_s, other=float("-inf"))
        part_total = tl.load(sums + (part * 2 + 1) * rows + row, mask=in_s, other=0.0)
        tile = parts + (part * rows + row)[:, None] * WIDTH + offs_f[None, :]
        tile = tl.load(tile, mask=in_s[:, None] & in_f[None, :], other=0.0)
        higher = tl.maximum(top, tl.max(part_top, 0))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(part_top - base)
        shrink = tl.exp2(top - base)
        total = total * shrink + tl.sum(part_total * weights, 0)
        values = values * shrink + tl.sum(tile * weights[:, None], 0)
        top = higher
    # A row that saw no key is 0.
    values = values / tl.where(total == 0.0, 1.0, total)
    tl.store(out + tl.program_id(0).to(tl.int64) * WIDTH + offs_f, values.to(out.dtype.element_ty), mask=in_f)
