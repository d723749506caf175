"""s = scale p q^T by programs that stay: each writes many tiles, and the write of one overlaps the matmul of the next.

One role, no warp specialisation. A ring of Q tiles is filled by TMA some tiles ahead; a P tile is kept while its
program sweeps along a row. A finished tile goes through a staging buffer in shared memory to a TMA store, which
drains while the next tiles are computed (IS_AHEAD: their matmul is started before this tile is staged). Hopper
only (wgmma, TMA).

Letters: T, U rows of p and q, R rank.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@gluon.jit
def load_rows(source, row, ready, tiles, slot, IS_TRANSPOSED: gl.constexpr, enabled):
    """Start the copies of one tile, in as many parts of its rank as a slot has; `ready` completes with the last."""
    CHUNKS: gl.constexpr = tiles.shape[0] // ready.shape[0]
    BLOCK_K: gl.constexpr = tiles.shape[1 if IS_TRANSPOSED else 2]
    barrier = ready.index(slot)
    mbarrier.expect(barrier, CHUNKS * source.block_type.nbytes, pred=enabled)
    for chunk in gl.static_range(CHUNKS):
        inner = chunk * BLOCK_K
        at = [inner, row] if IS_TRANSPOSED else [row, inner]
        tma.async_copy_global_to_shared(source, at, barrier, tiles.index(slot * CHUNKS + chunk), enabled)


@gluon.jit
def start_matmul(p_tiles, q_tiles, p_ready, q_ready, run, index, IS_TRANSPOSED: gl.constexpr, total, enabled):
    """Return the pending sums of a program's tile `index`, once its operands are there; not enabled: of anything.

    total: gives the shape and the layout; its values are not used.
    """
    P_BUFFERS: gl.constexpr = p_ready.shape[0]
    STAGES: gl.constexpr = q_ready.shape[0]
    CHUNKS: gl.constexpr = p_tiles.shape[0] // P_BUFFERS
    p_slot = run % P_BUFFERS
    q_slot = index % STAGES
    mbarrier.wait(p_ready.index(p_slot), run // P_BUFFERS & 1, pred=enabled)
    mbarrier.wait(q_ready.index(q_slot), index // STAGES & 1, pred=enabled)
    for chunk in gl.static_range(CHUNKS):
        left = p_tiles.index(p_slot * CHUNKS + chunk)
        right = q_tiles.index(q_slot * CHUNKS + chunk)
        if IS_TRANSPOSED:
            left = left.permute((1, 0))
        else:
            right = right.permute((1, 0))
        total = warpgroup_mma(left, right, total, use_acc=chunk > 0, is_async=True)
    return total


@gluon.jit(do_not_specialize=["p_rows", "q_rows", "out_stride", "scale"])
def scores_persistent_kernel(
    p,
    q,
    out,
    p_rows,
    q_rows,
    out_stride,
    scale,
    BLOCK_M: gl.constexpr,
    BLOCK_N: gl.constexpr,
    CHUNKS: gl.constexpr,
    P_BUFFERS: gl.constexpr,
    STAGES: gl.constexpr,
    STAGING: gl.constexpr,
    UNIT: gl.constexpr,
    IS_AHEAD: gl.constexpr,
    IS_SWEEP: gl.constexpr,
    IS_TRANSPOSED: gl.constexpr,
    HAS_SCALE: gl.constexpr,
    IS_CAUSAL: gl.constexpr,
    OVERLAP: gl.constexpr,
    MMA: gl.constexpr,
    WRITE: gl.constexpr,
):
    """Write this program's tiles of scale p q^T; causal: -inf right of the diagonal.

    p, q: descriptors of (T, R) and (U, R), or of (R, T) and (R, U) (IS_TRANSPOSED). A rank that CHUNKS blocks exceed is
    filled up with zeros by TMA.
    out: descriptor of (T, U), or (STAGING = 0) a pointer, written by plain stores of row stride out_stride.
    UNIT: divides q_rows and out_stride: how many elements a plain store may take at once.
    IS_AHEAD: the next tile's matmul runs while this one is staged and stored.
    IS_SWEEP: a program's tiles are neighbours in a row; else they are num_programs apart.
    MMA, WRITE: layouts of a tile in registers, as computed and as plainly stored.
    """
    dtype: gl.constexpr = p.dtype
    p_tiles = gl.allocate_shared_memory(dtype, [P_BUFFERS * CHUNKS, p.block_shape[0], p.block_shape[1]], p.layout)
    q_tiles = gl.allocate_shared_memory(dtype, [STAGES * CHUNKS, q.block_shape[0], q.block_shape[1]], q.layout)
    p_ready = gl.allocate_shared_memory(gl.int64, [P_BUFFERS, 1], mbarrier.MBarrierLayout())
    q_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    if STAGING > 0:
        staging = gl.allocate_shared_memory(dtype, [STAGING, BLOCK_M, BLOCK_N], out.layout)
    for slot in gl.static_range(P_BUFFERS):
        mbarrier.init(p_ready.index(slot), count=1)
    for slot in gl.static_range(STAGES):
        mbarrier.init(q_ready.index(slot), count=1)
    fence_async_shared()

    num_n = gl.cdiv(q_rows, BLOCK_N)
    num_tiles = gl.cdiv(p_rows, BLOCK_M) * num_n
    pid = gl.program_id(0)
    programs = gl.num_programs(0)
    if IS_SWEEP:
        first = pid * num_tiles // programs
        count = (pid + 1) * num_tiles // programs - first
        step = 1
        runs = (first + count - 1) // num_n - first // num_n + 1
    else:
        first = pid
        count = gl.cdiv(num_tiles - pid, programs)
        step = programs
        runs = count
    if OVERLAP == "early":
        gdc_launch_dependents()
        gdc_wait()
    elif OVERLAP == "wait":
        gdc_wait()
        gdc_launch_dependents()
    # A run is the tiles in turn that share rows of p: a part of a row where programs sweep, else one tile.
    for ahead in gl.static_range(P_BUFFERS):
        row = (first // num_n + ahead if IS_SWEEP else (first + ahead * step) // num_n) * BLOCK_M
        load_rows(p, row, p_ready, p_tiles, ahead, IS_TRANSPOSED, ahead < runs)
    for ahead in gl.static_range(STAGES):
        column = (first + ahead * step) % num_n * BLOCK_N
        load_rows(q, column, q_ready, q_tiles, ahead, IS_TRANSPOSED, ahead < count)

    zeros = gl.zeros([BLOCK_M, BLOCK_N], gl.float32, MMA)
    pending = start_matmul(p_tiles, q_tiles, p_ready, q_ready, 0, 0, IS_TRANSPOSED, zeros, True)
    for index in range(count):
        tile = first + index * step
        tile_m = tile // num_n
        tile_n = tile % num_n
        run = tile_m - first // num_n if IS_SWEEP else index
        p_slot = run % P_BUFFERS
        q_slot = index % STAGES
        total = warpgroup_mma_wait(0, deps=[pending])

        # Every warp has read both tiles before their slots are filled again.
        gl.thread_barrier()
        column = (tile + STAGES * step) % num_n * BLOCK_N
        load_rows(q, column, q_ready, q_tiles, q_slot, IS_TRANSPOSED, index + STAGES < count)
        if IS_SWEEP:
            row = (tile_m + P_BUFFERS) * BLOCK_M
            is_last = tile_n == num_n - 1
        else:
            row = (tile + P_BUFFERS * step) // num_n * BLOCK_M
            is_last = True
        if (run + P_BUFFERS < runs) & is_last:
            load_rows(p, row, p_ready, p_tiles, p_slot, IS_TRANSPOSED, True)

        if HAS_SCALE:
            total *= scale
        if IS_CAUSAL:
            rows = tile_m * BLOCK_M + gl.arange(0, BLOCK_M, gl.SliceLayout(1, MMA))
            columns = tile_n * BLOCK_N + gl.arange(0, BLOCK_N, gl.SliceLayout(0, MMA))
            total = gl.where(columns[None, :] <= rows[:, None], total, float("-inf"))
        value = total.to(dtype)
        next_run = (tile + 1) // num_n - first // num_n if IS_SWEEP else index + 1
        if IS_AHEAD:
            pending = start_matmul(
                p_tiles, q_tiles, p_ready, q_ready, next_run, index + 1, IS_TRANSPOSED, zeros, index + 1 < count
            )
        if STAGING > 0:
            buffer = staging.index(index % STAGING)
            tma.store_wait(STAGING - 1)
            buffer.store(value)
            fence_async_shared()
            tma.async_copy_shared_to_global(out, [tile_m * BLOCK_M, tile_n * BLOCK_N], buffer)
        else:
            value = gl.convert_layout(value, WRITE)
            rows = tile_m * BLOCK_M + gl.arange(0, BLOCK_M, gl.SliceLayout(1, WRITE))
            columns = tile_n * BLOCK_N + gl.arange(0, BLOCK_N, gl.SliceLayout(0, WRITE))
            at = out + rows[:, None].to(gl.int64) * (out_stride // UNIT * UNIT) + columns[None, :]
            gl.store(at, value, mask=(rows[:, None] < p_rows) & (columns[None, :] < q_rows // UNIT * UNIT))
        if not IS_AHEAD:
            pending = start_matmul(
                p_tiles, q_tiles, p_ready, q_ready, next_run, index + 1, IS_TRANSPOSED, zeros, index + 1 < count
            )
    warpgroup_mma_wait(0, deps=[pending])
    if STAGING > 0:
        tma.store_wait(0)
