"""What a model will be asked to do: prompts of a length, or single tokens after a context."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from narrows.errors import InputError

Phase = Literal["prefill", "decode"]
_FORM = re.compile(r"(prefill|decode):([0-9]+)(?:x([0-9]+))?(?:=([0-9.]+))?")


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of request.

    Attributes:
        phase: "prefill": a prompt in one forward pass; "decode": one more token for each sequence.
        tokens: prefill: length of the prompt; decode: tokens already in the cache.
        batch: sequences at a time.
        weight: its share of the use, against the other workloads' weights.
    """

    phase: Phase
    tokens: int
    batch: int = 1
    weight: float = 1.0

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.phase not in {"prefill", "decode"}:
            raise InputError(f"phase={self.phase!r} must be 'prefill' or 'decode'.")
        if self.tokens < 1 or self.batch < 1:
            raise InputError(f"tokens={self.tokens} and batch={self.batch} must be at least 1.")
        if not 0 < self.weight < math.inf:
            raise InputError(f"weight={self.weight} must be a finite number > 0.")

    @property
    def rows(self) -> int:
        """T: rows of x that a linear layer sees in one forward pass."""
        return self.batch * (self.tokens if self.phase == "prefill" else 1)

    @classmethod
    def parse(cls, text: str) -> Workload:
        """Read "prefill:TOKENSxBATCH=WEIGHT" or "decode:CONTEXTxBATCH=WEIGHT"; xBATCH and =WEIGHT may be left out.

        Raises:
            InputError: another form.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise InputError(
                f"workload {text!r} is not understood: give prefill:TOKENSxBATCH or decode:CONTEXTxBATCH, "
                "as prefill:2048x1, each with =WEIGHT if there are several."
            )
        phase, tokens, batch, weight = found.groups()
        try:
            share = float(weight or 1)
        except ValueError:
            raise InputError(f"workload {text!r}: {weight!r} is not a number.") from None
        return cls(phase, int(tokens), int(batch or 1), share)  # type: ignore[arg-type]

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f"={self.weight:g}"
        return f"{self.phase}:{self.tokens}x{self.batch}{weight}"
