"""Two wrong kernels that compute-sanitizer must find, or its silence means nothing (benchmarks/sanitize.sh)."""

# ruff: noqa: ANN001, ANN202 (device code)
from __future__ import annotations

import torch
import triton
import triton.language as tl

RACE = """
extern "C" __global__ void race(float *out) {
    __shared__ float cell[256];
    cell[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = cell[(threadIdx.x + 64) % 256];
}
"""


@triton.jit
def beyond(x, out, SIZE: tl.constexpr):
    offs = tl.arange(0, SIZE)
    tl.store(out + offs, tl.load(x + SIZE + offs))


def read_outside() -> None:
    """Launch a kernel that reads 64 elements beyond its operand."""
    x, out = torch.ones(64, device="cuda"), torch.empty(64, device="cuda")
    beyond[(1,)](x, out, SIZE=64)
    torch.cuda.synchronize()


def race() -> None:
    """Launch a kernel whose threads read each other's shared memory without a barrier."""
    out = torch.empty(256, device="cuda")
    kernel = torch.cuda._compile_kernel(RACE, "race")  # noqa: SLF001 (NVRTC without a build step)
    kernel((1, 1, 1), (256, 1, 1), [out])
    torch.cuda.synchronize()
