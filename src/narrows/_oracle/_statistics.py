"""T2: errors are as large, as even and as unbiased as rounding at the declared places makes them.

Catches what T1 cannot: a low-precision accumulator, a scale that is off by 2^-8, truncation
instead of rounding. Needs random normal data and at least 10^4 elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from narrows.errors import InputError

if TYPE_CHECKING:
    from narrows._oracle._bounds import Reference
    from narrows._oracle._exact_data import Operands

MIN_ELEMENTS = 10_000
# Ratios to the emulated chain that no correct variant passed and every mutant of a set of ten did:
# 400 mutant runs and 160 correct ones (split sums, reversed sums, float64 sums, float32 middle).
MAX_RMS = 1.10
MAX_LINE_RMS = 1.6
MAX_BIAS = 0.05
# float32 sums differ in order: one running sum has sqrt(m) times the rms error of m interleaved ones, and
# libraries interleave up to 16. A lower precision of the products multiplies it by hundreds.
MAX_RMS_FLOAT32 = 4.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """Attributes:
    rms: rms of the errors / rms of the emulated chain's errors.
    line_rms: the same for the worst row or column.
    bias: |mean(error * sign(value))| / rms of the errors, less 8 / sqrt(N) of sampling noise.
    is_float32: the wider gate for float32 applies; only `rms` is held to it.
    """

    rms: float
    line_rms: float
    bias: float
    is_float32: bool

    @property
    def failures(self) -> tuple[str, ...]:
        """What is out of range, one phrase each; empty for a sound result. NaN fails."""
        if self.is_float32:
            gates = {"rms error": (self.rms, MAX_RMS_FLOAT32)}
        else:
            gates = {
                "rms error": (self.rms, MAX_RMS),
                "rms error of the worst row or column": (self.line_rms, MAX_LINE_RMS),
                "bias": (self.bias, MAX_BIAS),
            }
        return tuple(
            f"{name} is {value:.3g} of what rounding explains (at most {most:g})"
            for name, (value, most) in gates.items()
            if not value <= most
        )


def emulate(operands: Operands, *, middle: torch.dtype | None = None) -> torch.Tensor:
    """Return the thin chain rounded at the declared places only: sums in float64 for 16-bit operands.

    For float32 the sums are float32: float64 sums would be about ten times too good.

    Args:
        middle: dtype of the projections; default the operands' dtype.
    """
    dtype = operands.x.dtype
    work = torch.float64 if dtype in {torch.float16, torch.bfloat16} else dtype

    def project(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return (x.to(work) @ a.to(work).mT).to(middle or dtype).to(work)

    first = project(operands.x, operands.a)
    second = operands.b.to(work) if operands.y is None else project(operands.y, operands.b).mT
    return (first @ second).to(dtype)


def statistics(result: torch.Tensor, reference: Reference, emulated: torch.Tensor) -> Statistics:
    """Return the statistics of a result's errors against those of the emulated chain.

    Args:
        result: (..., T, U) or (..., T, E), of normal operands; at least 10^4 elements.
        reference: its exact value.
        emulated: from `emulate`, of the same operands.

    Raises:
        InputError: too few elements to tell.
    """
    if result.numel() < MIN_ELEMENTS:
        raise InputError(f"result {tuple(result.shape)} has {result.numel()} elements: T2 needs {MIN_ELEMENTS}.")
    error = result.to(torch.float64) - reference.value
    expected = emulated.to(torch.float64) - reference.value
    rms = _rms(error)
    bias = float((error * reference.value.sign()).mean().abs()) / (rms or 1.0) - 8 / math.sqrt(error.numel())
    lines = [float((_rms_lines(error, dim) / _rms_lines(expected, dim)).max()) for dim in (-1, -2)]
    return Statistics(rms / _rms(expected), max(lines), bias, result.dtype == torch.float32)


def _rms(error: torch.Tensor) -> float:
    return float(error.square().mean().sqrt())


def _rms_lines(error: torch.Tensor, dim: int) -> torch.Tensor:
    return error.square().mean(dim=dim).sqrt()
