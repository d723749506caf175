"""One way to run a model, as measured: its size, speed and quality side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass

from narrows.errors import InputError


@dataclass(frozen=True, slots=True)
class ModelPoint:
    """What was measured of one model: "dense", "int8", "keep 0.9", ...

    Attributes:
        label: what people call it; "dense" is what the others are compared with.
        kept: numbers in place of the block linears / the dense block linears' numbers.
        num_bytes: that are kept in place of the block linears.
        speedup: dense time / its time at the workload, with the ends of its 99 % interval; None: not measured.
        perplexity: with the ends of its interval; None: not measured.
        note: what to know of it ("weight-only int8 by torchao"); may be empty.
        is_choice: layers in other forms, of which there are more with other budgets.
    """

    label: str
    kept: float
    num_bytes: int
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    perplexity: float | None = None
    perplexity_low: float | None = None
    perplexity_high: float | None = None
    note: str = ""
    is_choice: bool = False

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("kept", "num_bytes", "speedup", "perplexity"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{self.label!r}: {name}={value} must be a finite number > 0.")
