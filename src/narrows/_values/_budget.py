"""What a user allows: an error at most, a speedup at least, bytes at most."""

from __future__ import annotations

import math
from dataclasses import dataclass

from narrows.errors import InputError


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on a choice; None means "no limit".

    Attributes:
        error: the largest relative error, ||S_thin - S|| / ||S|| (0.01 is 1 %). For
            `factorize`, which sees no inputs, the weight's own relative Frobenius error.
        min_speedup: dense time / thin time must be at least this (its lower 99 % end).
        max_bytes: the factors may take at most this many bytes.
    """

    error: float | None = None
    min_speedup: float | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.error is not None and not 0 <= self.error < math.inf:
            raise InputError(f"error={self.error} must be a finite number >= 0 (0.01 is 1 %).")
        if self.min_speedup is not None and not 0 < self.min_speedup < math.inf:
            raise InputError(f"min_speedup={self.min_speedup} must be a finite number > 0 (1.2 is 20 % faster).")
        if self.max_bytes is not None and self.max_bytes <= 0:
            raise InputError(f"max_bytes={self.max_bytes} must be > 0.")
