"""How a model is compressed: everything but the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from narrows.errors import InputError

if TYPE_CHECKING:
    from narrows._values import Form

Method = Literal["two-sided", "one-sided"]
METHODS: tuple[Method, ...] = ("two-sided", "one-sided")
OfferedForm = Literal["low-rank", "pivot", "shared"]
FORMS: tuple[OfferedForm, ...] = ("low-rank", "pivot", "shared")
AUTOCASTS = ("bfloat16", "float16")
RECOVERED = ("factors", "blocks")
FEWEST_WINDOWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is compressed.

    Attributes:
        method: of factorisation: "two-sided" weighs what enters a layer and what the loss makes of its
            output; "one-sided" only what enters it, and needs no backward pass.
        forms: that a layer may take beside dense; "shared" lets layers that read one input take the others together,
            with one projection (SmolLM2-135M took none of these at 80 and 90 % of its numbers).
        is_anchored: fits each layer to what it reads in the compressed model.
        calibration_tokens: read to calibrate.
        selection_tokens: of other text, on which the choice is measured; fewer where the text has no more.
        context: tokens a window.
        recovery_seconds: of training afterwards, in all; 0: none.
        recovered: what is trained: "factors", or "blocks" (also what stayed dense in them).
        seed: of the split of the text, of sampled labels and of training.
        autocast: dtype of calibration's and recovery's passes ("bfloat16"); None: the model's own.
    """

    method: Method = "two-sided"
    forms: tuple[OfferedForm, ...] = ("low-rank", "pivot")
    is_anchored: bool = True
    calibration_tokens: int = 32768
    selection_tokens: int = 16384
    context: int = 512
    recovery_seconds: float = 0.0
    recovered: Literal["factors", "blocks"] = "factors"
    seed: int = 0
    autocast: str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method={self.method!r} is not known. Use one of: {', '.join(METHODS)}.")
        if not self.forms or not set(self.forms) <= set(FORMS):
            raise InputError(f"forms={self.forms!r} must be some of: {', '.join(FORMS)}.")
        if not self.own_forms:
            raise InputError(f"forms={self.forms!r}: what is shared is low-rank or pivot; give one of them too.")
        if self.context < 2:
            raise InputError(f"context={self.context} must be at least 2 tokens.")
        for name in ("calibration_tokens", "selection_tokens"):
            if getattr(self, name) < FEWEST_WINDOWS * self.context:
                raise InputError(
                    f"{name}={getattr(self, name)} must be at least {FEWEST_WINDOWS} windows of "
                    f"context={self.context} tokens: {FEWEST_WINDOWS * self.context}."
                )
        if not 0 <= self.recovery_seconds < math.inf:
            raise InputError(f"recovery_seconds={self.recovery_seconds} must be a finite number >= 0.")
        if self.recovered not in RECOVERED:
            raise InputError(f"recovered={self.recovered!r} is not known. Use one of: {', '.join(RECOVERED)}.")
        if self.autocast is not None and self.autocast not in AUTOCASTS:
            raise InputError(f"autocast={self.autocast!r} is not known. Use one of: {', '.join(AUTOCASTS)}, or None.")

    @property
    def own_forms(self) -> tuple[Form, ...]:
        """The forms that a layer may take by itself."""
        return tuple(one for one in self.forms if one != "shared")

    @property
    def is_sharing(self) -> bool:
        """Layers that read one input may share a projection."""
        return "shared" in self.forms
