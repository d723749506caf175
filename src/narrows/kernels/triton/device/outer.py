"""c = epilogue(p q^T) with the rank as inner dimension: a bilinear chain's scores, a linear one's expansion.

Letters: T, U rows of p and q, R rank, S parts of a split projection.
"""

import triton
import triton.language as tl

from narrows.kernels.triton.device.order import after


@triton.jit
def activate(value, KIND: tl.constexpr):
    """Return the activation of a float32 tile: "", "relu", "silu", "gelu" (exact) or "gelu_tanh"."""
    if KIND == "relu":
        value = tl.where(value < 0.0, 0.0, value)  # keeps NaN, which a maximum would not
    elif KIND == "silu":
        value = value * tl.sigmoid(value)
    elif KIND == "gelu":
        value = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    elif KIND == "gelu_tanh":
        value = value * tl.sigmoid(1.5957691216057308 * (value + 0.044715 * value * value * value))
    return value


@triton.jit
def tanh(value):
    """Return tanh of a float32 tile: within 4 units in the last place, also near zero.

    The polynomial below 0.625 is that of the Cephes library's tanhf (S. Moshier, netlib.org/cephes);
    above it 1 - 2 e / (1 + e), e = exp(-2 |value|), loses nothing.
    """
    size = tl.abs(value)
    small = tl.minimum(size, 1.0)  # the polynomial must not overflow where it is not used
    square = small * small
    series = -5.70498872745e-3 * square + 2.06390887954e-2
    series = series * square - 5.37397155531e-2
    series = series * square + 1.33314422036e-1
    series = series * square - 3.33332819422e-1
    fall = tl.exp(-2.0 * size)
    far = 1.0 - 2.0 * fall / (1.0 + fall)
    return tl.where(size < 0.625, series * square * value + value, tl.where(value < 0.0, -far, far))


@triton.jit(do_not_specialize=["p_rows", "scale", "softcap"])
def outer_kernel(
    p,
    q,
    bias,
    mask,
    residual,
    out,
    p_rows,
    q_rows,
    heads,
    p_batch,
    p_head,
    p_stride,
    q_batch,
    q_head,
    q_stride,
    q_inner,
    part_stride,
    mask_batch,
    mask_head,
    mask_row,
    mask_column,
    residual_stride,
    out_batch,
    out_stride,
    scale,
    softcap,
    RANK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    PARTS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    MASK: tl.constexpr,
    IS_CAUSAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    OVERLAP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write one tile of scale p q^T -> softcap -> + bias -> + mask -> activation -> + residual.

    PARTS > 1: p is a float32 stack (S, T, R) whose sum, rounded to q's type, is the projection.
    MASK: "", "bool" (False becomes -inf) or "add".
    Axes of the grid: tiles; then batch * heads + head, spread over axes 1 and 2 (65535 each at most).
    """
    num_m = tl.cdiv(p_rows, BLOCK_M)
    num_n = tl.cdiv(q_rows, BLOCK_N)
    pid = tl.program_id(0)
    in_group = GROUP * num_n
    first_m = (pid // in_group) * GROUP
    height = tl.minimum(num_m - first_m, GROUP)
    tile_m = first_m + (pid % in_group) % height
    tile_n = (pid % in_group) // height
    matrix = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    batch = matrix // heads
    head = matrix % heads
    offs_m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m = offs_m[:, None] < p_rows
    in_n = offs_n[None, :] < q_rows
    p_row = p + batch.to(tl.int64) * p_batch + head.to(tl.int64) * p_head + offs_m[:, None].to(tl.int64) * p_stride
    q_row = q + batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head + offs_n[None, :].to(tl.int64) * q_stride
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    after(OVERLAP)
    WHOLE: tl.constexpr = RANK % BLOCK_K == 0
    for start in range(0, RANK, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        p_in = in_m if WHOLE else in_m & (offs_k[None, :] < RANK)
        q_in = in_n if WHOLE else in_n & (offs_k[:, None] < RANK)
        left_at = p_row + offs_k[None, :]
        left = tl.load(left_at, mask=p_in, other=0.0)
        for _ in tl.static_range(1, PARTS):
            left_at += part_stride  # in steps: a product of 32-bit numbers could overflow
            left += tl.load(left_at, mask=p_in, other=0.0)
        right = tl.load(q_row + offs_k[:, None].to(tl.int64) * q_inner, mask=q_in, other=0.0)
        total = tl.dot(left.to(right.dtype), right, total, input_precision=PRECISION)
    if HAS_SCALE:
        total *= scale
    if HAS_SOFTCAP:
        total = softcap * tanh(total / softcap)
    if HAS_BIAS:
        total += tl.load(bias + offs_n, mask=offs_n < q_rows, other=0.0).to(tl.float32)[None, :]
    if MASK != "":
        at = mask + batch.to(tl.int64) * mask_batch + head.to(tl.int64) * mask_head
        at += offs_m[:, None].to(tl.int64) * mask_row + offs_n[None, :].to(tl.int64) * mask_column
        value = tl.load(at, mask=in_m & in_n, other=0)
        if MASK == "bool":
            total = tl.where(value != 0, total, float("-inf"))
        else:
            total += value.to(tl.float32)
    if IS_CAUSAL:
        total = tl.where(offs_n[None, :] <= offs_m[:, None], total, float("-inf"))
    total = activate(total, ACTIVATION)
    row = offs_m[:, None].to(tl.int64)
    if HAS_RESIDUAL:
        total += tl.load(residual + row * residual_stride + offs_n[None, :], mask=in_m & in_n, other=0.0).to(tl.float32)
    at = out + matrix.to(tl.int64) * out_batch + row * out_stride + offs_n[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=in_m & in_n)
