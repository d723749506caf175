"""dP = dS Q and dQ = dS^T P in one launch: dS comes from device memory once and from the cache the second time.

Letters: T rows of dS and P, U columns of dS and rows of Q, R rank, B batches, S parts.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["p_rows", "q_rows", "dq_start"])
def backward_kernel(
    grad,
    p,
    q,
    out,
    p_rows,
    q_rows,
    grad_batch,
    grad_stride,
    dq_start,
    split_stride,
    RANK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write (B, T, R) dP, then (B, U, R) dQ from element `dq_start` on; with SPLIT > 1 a float32 stack of parts.

    Axes of the grid: blocks times tiles of the rank; parts; batches. Blocks of rows (dP) and of
    columns (dQ) take turns, so that what one half reads is soon read by the other. No two programs
    write the same element. p (B, T, R) and q (B, U, R) are contiguous.
    """
    num_m = tl.cdiv(p_rows, BLOCK_M)
    num_n = tl.cdiv(q_rows, BLOCK_M)
    num_r: tl.constexpr = (RANK + BLOCK_R - 1) // BLOCK_R
    block = tl.program_id(0) // num_r
    both = 2 * tl.minimum(num_m, num_n)
    is_turn = block < both
    is_rows = (is_turn & (block % 2 == 0)) | ((block >= both) & (num_m > num_n))
    index = tl.where(is_turn, block // 2, block - both // 2)
    part = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    offs = index * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_r = (tl.program_id(0) % num_r) * BLOCK_R + tl.arange(0, BLOCK_R)
    in_r = offs_r[None, :] < RANK
    grad += batch * grad_batch
    out += part.to(tl.int64) * split_stride
    total = tl.zeros((BLOCK_M, BLOCK_R), tl.float32)
    if is_rows:
        steps = tl.cdiv(q_rows, BLOCK_K * SPLIT)
        row = grad + offs[:, None].to(tl.int64) * grad_stride
        q += batch * q_rows * RANK
        for step in range(steps):
            offs_k = (part * steps + step) * BLOCK_K + tl.arange(0, BLOCK_K)
            left = tl.load(row + offs_k[None, :], mask=(offs[:, None] < p_rows) & (offs_k[None, :] < q_rows), other=0.0)
            at = q + offs_k[:, None].to(tl.int64) * RANK + offs_r[None, :]
            right = tl.load(at, mask=(offs_k[:, None] < q_rows) & in_r, other=0.0)
            total = tl.dot(left, right, total, input_precision=PRECISION)
        out += batch * p_rows * RANK
        at = out + offs[:, None].to(tl.int64) * RANK + offs_r[None, :]
        tl.store(at, total.to(out.dtype.element_ty), mask=(offs[:, None] < p_rows) & in_r)
    else:
        steps = tl.cdiv(p_rows, BLOCK_K * SPLIT)
        p += batch * p_rows * RANK
        for step in range(steps):
            offs_k = (part * steps + step) * BLOCK_K + tl.arange(0, BLOCK_K)
            at = grad + offs_k[:, None].to(tl.int64) * grad_stride + offs[None, :]
            left = tl.load(at, mask=(offs_k[:, None] < p_rows) & (offs[None, :] < q_rows), other=0.0)
            at = p + offs_k[:, None].to(tl.int64) * RANK + offs_r[None, :]
            right = tl.load(at, mask=(offs_k[:, None] < p_rows) & in_r, other=0.0)
            total = tl.dot(tl.trans(left), right, total, input_precision=PRECISION)
        out += dq_start + batch * q_rows * RANK
        at = out + offs[:, None].to(tl.int64) * RANK + offs_r[None, :]
        tl.store(at, total.to(out.dtype.element_ty), mask=(offs[:, None] < q_rows) & in_r)
