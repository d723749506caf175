"""The sum of a split projection's parts, in fixed order, so that it is the same in every run.

Letters: T tokens, N columns of the projection, S parts.
"""

import triton
import triton.language as tl

from narrows.kernels.triton.device.order import after


@triton.jit
def reduce_kernel(
    parts,
    bias,
    out,
    size,
    columns,
    part_stride,
    BLOCK: tl.constexpr,
    SPLIT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Write the sum of `parts` (S, T, N), plus bias (N,), in out's type; size = T N."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    part = parts + at
    after(OVERLAP)
    total = tl.load(part, mask=inside, other=0.0)
    for _ in tl.static_range(1, SPLIT):
        part += part_stride  # in steps: a product of 32-bit numbers could overflow
        total += tl.load(part, mask=inside, other=0.0)
    if HAS_BIAS:
        total += tl.load(bias + at % columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)
