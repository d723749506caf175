"""Own bilinear kernels with fixed sizes, and what finished scores must be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from narrows._oracle import Reference, bilinear_bound, worst
from narrows.kernels._config import Config, Tiles
from narrows.kernels._epilogue import PLAIN
from narrows.kernels.triton._bilinear import BilinearTriton

# Whole tiles, so that the interpreter runs few programs; and small ones with a split that leaves tails everywhere.
LARGE = Config(Tiles(64, 64, 64), Tiles(64, 64, 64))
SPLIT = Config(Tiles(16, 16, 16, split=3), Tiles(16, 32, 16))
SINGLE = 2.0**-24
UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class Sized:
    """Own kernels with the sizes given, as an implementation that `check_kernel` takes."""

    config: Config
    kernel: BilinearTriton = field(default_factory=BilinearTriton)
    name: str = "sized"
    kind: str = "bilinear"

    def refuses(self, problem):
        return self.kernel.refuses(problem)

    def pack(self, factors):
        return self.kernel.pack(factors)

    def run(self, x, factors, y=None, *, out=None):
        return self.kernel.run_with(self.config, x, factors, y, out=out)


def finished(x, a, b, y, epilogue=PLAIN):
    """Return value and bound of the finished scores; -inf where they must be -inf.

    After the scores' own bound each step adds a float32 rounding (tanh: 4, with the division and the
    product around it 6), and the end one rounding to the dtype.
    """
    plain = bilinear_bound(x, a, b, y)
    value, bound = plain.value, plain.bound
    if epilogue.scale is not None:
        value, bound = value * epilogue.scale, bound * abs(epilogue.scale)
        bound = bound + SINGLE * (value.abs() + bound)
    if epilogue.softcap is not None:
        value = epilogue.softcap * torch.tanh(value / epilogue.softcap)
        bound = bound + 6 * SINGLE * (value.abs() + bound)
    mask = epilogue.mask
    if mask is not None and mask.dtype == torch.bool:
        value = value.masked_fill(~mask, -math.inf)
    elif mask is not None:
        value = value + mask.double()
        bound = bound + SINGLE * (value.abs() + bound)
    if epilogue.is_causal:
        value = value.masked_fill(torch.ones(value.shape[-2:], device=x.device).triu(1) > 0, -math.inf)
    return Reference(value, bound + UNIT[x.dtype] * (value.abs().nan_to_num(posinf=0) + bound))


def assert_right(result, reference):
    """Pass a result that is -inf where it must be and within its bound elsewhere."""
    hidden = reference.value == -math.inf
    assert torch.equal(result == -math.inf, hidden)
    seen = Reference(reference.value.masked_fill(hidden, 0), reference.bound)
    assert worst(result.masked_fill(hidden, 0), seen) <= 1


def make(*shape, dtype=torch.float32, seed=0, device=DEVICE):
    """Return standard normal numbers."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)
