"""Where a chain rounds, and by how much: unit roundoffs, underflow floors, accumulation.

N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 2.2, 3.1 and 3.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

ROUNDOFF = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
# Half the smallest subnormal where underflow is gradual everywhere (float16); the smallest normal
# where some units flush to zero (AVX512-BF16 and AMX do for bfloat16 and its float32 sums).
FLOOR = {torch.float64: 2.0**-1022, torch.float32: 2.0**-126, torch.float16: 2.0**-25, torch.bfloat16: 2.0**-126}
# Tensor cores truncate when they add: one more bit than round-to-nearest's 2^-24.
TENSOR_CORE_ROUNDOFF = 2.0**-23


def gamma(terms: int, u: float) -> float:
    """Return n u / (1 - n u), the relative error that n roundings can reach; inf from n u = 1 on."""
    return terms * u / (1 - terms * u) if terms * u < 1 else math.inf


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """The rounding points of one chain.

    Attributes:
        stored: dtype of operands and result.
        middle: dtype in which what stands between two matmuls is kept.
        accumulator: unit roundoff of the sums.
    """

    stored: torch.dtype
    middle: torch.dtype
    accumulator: float

    @classmethod
    def of(
        cls, dtype: torch.dtype, *, middle: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> Arithmetic:
        """Return the arithmetic of a chain on a device.

        Args:
            middle: default `dtype`, as two separate matmuls keep it; a fused kernel may keep float32.
            device: sums are float32 rounded to nearest on a CPU (2^-24), truncated on a GPU's
                tensor cores (2^-23) for 16-bit operands; float64 for float64.
        """
        is_tensor_core = torch.device(device).type == "cuda" and dtype in {torch.float16, torch.bfloat16}
        accumulator = TENSOR_CORE_ROUNDOFF if is_tensor_core else min(ROUNDOFF[dtype], ROUNDOFF[torch.float32])
        return cls(dtype, middle or dtype, accumulator)

    def gamma(self, terms: int) -> float:
        """Return gamma of the chain's own sum plus that of the float64 reference it is compared with."""
        return gamma(terms, self.accumulator) + gamma(terms, ROUNDOFF[torch.float64])

    def projection_error(self, value: torch.Tensor, magnitude: torch.Tensor, terms: int) -> torch.Tensor:
        """Return the error of a matmul whose result is kept as `middle`.

        Args:
            value: the exact result, float64.
            magnitude: the same matmul of absolute values.
            terms: length of its sums.
        """
        error = self.gamma(terms) * magnitude + terms * self._sum_floor
        return error + ROUNDOFF[self.middle] * (value.abs() + error) + FLOOR[self.middle]

    def result_error(self, value: torch.Tensor, error: torch.Tensor, terms: int) -> torch.Tensor:
        """Return the bound of the stored result, given the error before it is stored."""
        error = error + terms * self._sum_floor
        return error + ROUNDOFF[self.stored] * (value.abs() + error) + FLOOR[self.stored]

    @property
    def _sum_floor(self) -> float:
        """What one product inside a sum can lose to underflow."""
        return FLOOR[torch.float64 if self.stored == torch.float64 else torch.float32]
