"""Own linear kernels with fixed sizes, and what a finished result must be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

import torch
from torch.nn import functional

from narrows import Factors
from narrows._oracle import Reference, linear_bound
from narrows.kernels import LinearEpilogue
from narrows.kernels._config import Config, Tiles
from narrows.kernels.triton._linear import LinearTriton

# Whole tiles, so that the interpreter runs few programs; and small ones with a split that leaves tails everywhere.
WHOLE = Config(Tiles(64, 64, 64), Tiles(64, 64, 64))
SPLIT = Config(Tiles(16, 16, 16, split=3), Tiles(16, 32, 16))
ON_LOAD = Config(SPLIT.project, SPLIT.second, reduce="load")
CONFIGS = {"whole": WHOLE, "split": SPLIT, "split, added on load": ON_LOAD}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SINGLE = 2.0**-24
UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
ACTIVATIONS = {
    None: lambda values: values,
    "relu": functional.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}
# The largest slope of an activation: relu 1, silu 1.0998, gelu 1.1289, its tanh form 1.1292.
SLOPE = {None: 1.0, "relu": 1.0, "silu": 1.1, "gelu": 1.13, "gelu_tanh": 1.13}


@dataclass
class Sized:
    """Own kernels with the sizes given, as an implementation that `check_kernel` takes."""

    config: Config
    kernel: LinearTriton = field(default_factory=LinearTriton)
    name: str = "sized"
    kind: str = "linear"

    def refuses(self, problem):
        return self.kernel.refuses(problem)

    def pack(self, factors):
        return self.kernel.pack(factors)

    def run(self, x, factors, y=None, *, out=None, bias=None):
        return self.kernel.run_with(self.config, x, factors, epilogue=LinearEpilogue(bias), out=out)


def make(*shape, dtype=torch.float32, seed=0):
    """Return standard normal numbers on the device of these tests."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).to(dtype).to(DEVICE)


def pair(rank, in_features, out_features, dtype=torch.float32, seed=0):
    """Return factors a (R, D), b (R, E)."""
    return Factors(
        make(rank, in_features, dtype=dtype, seed=seed), make(rank, out_features, dtype=dtype, seed=seed + 1)
    )


def as_child(factors):
    """Return the factors with b as a view of up.weight (E, R)."""
    return Factors(factors.a, factors.b.mT.contiguous().mT)


def before_activation(x, factors, epilogue):
    """Return value and bound, in float64, of what a float32 accumulator holds before the activation.

    The middle bias is one more product of the projection's sums: x gets a column of ones, a the bias.
    """
    a = factors.a
    if epilogue.middle_bias is not None:
        x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
        a = torch.cat([a, epilogue.middle_bias.unsqueeze(-1)], dim=-1)
    return linear_bound(x, a, factors.b, epilogue.bias, dtype=torch.float32, middle=x.dtype)


def activated(before, activation):
    """Return value and bound after the activation.

    The slope carries the error before it; a float32 activation adds at most 16 roundings of a number no
    larger than |z| + 1 (exp, erf and tanh within 4, the products around them one each).
    """
    value = ACTIVATIONS[activation](before.value)
    bound = SLOPE[activation] * before.bound
    if activation is not None:
        bound = bound + 16 * SINGLE * (before.value.abs() + before.bound + 1)
    return Reference(value, bound)


def rounded(value, bound, dtype):
    """Return value and bound once the result is stored, after one more float32 rounding."""
    bound = bound + SINGLE * (value.abs() + bound)
    return Reference(value, bound + UNIT[dtype] * (value.abs() + bound) + 2.0**-25)


def finished(x, factors, epilogue):
    """Return value and bound of the finished result."""
    after = activated(before_activation(x, factors, epilogue), epilogue.activation)
    value = after.value if epilogue.residual is None else after.value + epilogue.residual.double()
    return rounded(value, after.bound, x.dtype)


def finished_gated(x, gate, up, biases, activation):
    """Return value and bound of activation(x gate) * (x up)."""
    opening = activated(before_activation(x, gate, LinearEpilogue(biases[0])), activation)
    values = before_activation(x, up, LinearEpilogue(biases[1]))
    value = opening.value * values.value
    bound = opening.bound * (values.value.abs() + values.bound) + opening.value.abs() * values.bound
    return rounded(value, bound, x.dtype)


def assert_right(result, reference):
    """Raise unless every element lies within its bound."""
    assert result.shape == reference.value.shape
    error = (result.double() - reference.value).abs()
    ratio = float((error / reference.bound).max()) if result.numel() else 0.0
    assert ratio <= 1, f"the worst |error| is {ratio:.3g} times its bound"
    assert not math.isnan(ratio)


def integers(*shape, dtype=torch.float32, seed=0):
    """Return whole numbers in -1..1 on the device of these tests: every correct chain gives the same bits."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randint(-1, 2, shape, generator=generator).to(dtype).to(DEVICE)
