"""What a chain of rounded steps computes, in float64, and how far rounding can have taken each element.

A running error analysis on `narrows.testing.Arithmetic`: every step takes values with the error they may already
have and gives values with the error they may have then. For a plain chain of two matmuls it gives the bounds of
`narrows.testing.LinearOracle` and `BilinearOracle` (tests/soak/test_right.py), and it goes on where they end:
biases, activations, masks, gradients.

Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 3.1, 3.3 and 3.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from narrows.testing import Arithmetic, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

REFERENCE = 2.0**-53  # the reference itself rounds: float64
# exp, erf and tanh of torch's vectors are off by at most 4 units, the products around them by one each.
FUNCTION_ROUNDINGS = 16


@dataclass(frozen=True, eq=False)
class Known:
    """Attributes:
    value: what exact arithmetic gives, float64.
    error: the largest |computed - value|, elementwise, float64.
    """

    value: Tensor
    error: Tensor

    @property
    def most(self) -> Tensor:
        """The largest magnitude that the computed value can have."""
        return self.value.abs() + self.error

    @property
    def transposed(self) -> Known:
        """Both transposed."""
        return Known(self.value.mT, self.error.mT)

    def moved(self, move: Callable[[Tensor], Tensor]) -> Known:
        """Return both after a function that only moves or selects elements."""
        return Known(move(self.value), move(self.error))

    @property
    def reference(self) -> Reference:
        """The same for `narrows.testing.worst`."""
        return Reference(self.value, self.error)


def exact(tensor: Tensor) -> Known:
    """Return what was given: without error."""
    value = tensor.detach().to(torch.float64)
    return Known(value, torch.zeros_like(value))


class Chain:
    """Steps whose results are kept in one dtype.

    Attributes:
        largest: magnitude that any stored result can have had: beyond the dtype's range nothing is promised.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.arithmetic = Arithmetic.of(dtype)
        self.largest = 0.0

    @property
    def may_overflow(self) -> bool:
        """Something stored may have left the lower half of the dtype's range."""
        return not self.largest < torch.finfo(self.dtype).max / 2

    @property
    def unit(self) -> float:
        """Unit roundoff of the sums and of what is computed inside one operation."""
        return self.arithmetic.accumulator

    def stored(self, value: Tensor, error: Tensor, terms: int = 0) -> Known:
        """Return the value once it is rounded to the dtype; `terms` products may each have lost to underflow."""
        known = Known(value, self.arithmetic.result_error(value, error + REFERENCE * value.abs(), terms))
        if value.numel():
            self.largest = max(self.largest, float(known.most.max()))
        return known

    def product(self, left: Known, right: Known, plus: Known | None = None) -> Known:
        """Return left @ right + plus, stored: |l - L| |R| + |l| |r - R| + g_K |l| |r| and the rounding."""
        value, error, terms = self.wide_product(left, right, plus)
        return self.stored(value, error, terms)

    def wide_product(self, left: Known, right: Known, plus: Known | None = None) -> tuple[Tensor, Tensor, int]:
        """Return value, error and length of the sums of left @ right + plus before it is stored."""
        left_most, right_most = left.most, right.most
        value, size = left.value @ right.value, left_most @ right_most
        error = left.error @ right.value.abs() + left_most @ right.error
        terms = left.value.shape[-1]
        if plus is not None:
            value, size, error, terms = value + plus.value, size + plus.most, error + plus.error, terms + 1
        return value, error + self.arithmetic.gamma(terms) * size, terms

    def add(self, left: Known, right: Known) -> Known:
        """Return left + right, stored."""
        return self.stored(left.value + right.value, left.error + right.error)

    def times(self, left: Known, right: Known) -> Known:
        """Return left * right, stored."""
        return self.stored(left.value * right.value, left.error * right.value.abs() + left.most * right.error)

    def scaled(self, known: Known, number: float) -> Known:
        """Return number * known, stored; the number is rounded to the type of the sums first."""
        error = abs(number) * (known.error + 2 * self.unit * known.most)
        return self.stored(known.value * number, error)

    def through(
        self, known: Known, function: Callable[[Tensor], Tensor], slope: float, *, top: float = math.inf
    ) -> Known:
        """Return function(known), stored, for a function that is 0 at 0, nowhere steeper than `slope` nor above `top`.

        |f(x)| is then at most slope |x|, of which each of the roundings inside takes a unit.
        """
        error = slope * (known.error + FUNCTION_ROUNDINGS * self.unit * (known.most.clamp(max=top) + 1))
        return self.stored(function(known.value), error)

    def total(self, known: Known, shape: Sequence[int]) -> Known:
        """Return known summed to a shape that it was broadcast from, stored."""
        if tuple(known.value.shape) == tuple(shape):
            return known
        terms = known.value.numel() // max(1, math.prod(shape))
        error = known.error.sum_to_size(shape) + self.arithmetic.gamma(terms) * known.most.sum_to_size(shape)
        return self.stored(known.value.sum_to_size(shape), error, terms)
