"""What became of a model's attention, as a value that prints.

Letters: H heads, G key heads, K width of a head, R and F widths of keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class AttentionChange:
    """One attention layer.

    Attributes:
        name: of the module in the model; kind: its class before.
        heads, groups, width: H, G and K; 0 where they were not read.
        query_key_width, value_width: R and F; K where they stay.
        query_key_error: expected relative error of the scores (without rotary positions, of what the softmax sees of
            them); None: they stay.
        value_error: expected relative error of what the heads add; None: they stay.
        reason: why nothing or not everything was done; empty: all that was asked for.
    """

    name: str
    kind: str
    heads: int = 0
    groups: int = 0
    width: int = 0
    query_key_width: int = 0
    value_width: int = 0
    query_key_error: float | None = None
    value_error: float | None = None
    reason: str = ""

    @property
    def is_changed(self) -> bool:
        """Something is narrower."""
        return self.query_key_error is not None or self.value_error is not None

    def __str__(self) -> str:
        if not self.is_changed:
            return f"{self.name}: stays as it is ({self.reason})"
        parts = [f"{self.name}: heads {self.width} wide"]
        for what, width, error in (
            ("queries and keys", self.query_key_width, self.query_key_error),
            ("values", self.value_width, self.value_error),
        ):
            if error is not None:
                parts.append(f"{what} {width} (error {error:.3g})")
        return ", ".join(parts) + (f"; {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True)
class AttentionSummary:
    """What became of every attention of a model, in its order.

    Attributes:
        notes: what a reader should know.
        certificate: plain JSON of how it was made, for `save`.
    """

    layers: tuple[AttentionChange, ...]
    notes: tuple[str, ...] = ()
    certificate: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """Attentions with narrower heads."""
        return sum(layer.is_changed for layer in self.layers)

    @property
    def cache_share(self) -> float:
        """Numbers that a cache holds of each token / numbers before, over the attentions that were read."""
        read = [layer for layer in self.layers if layer.width]
        now = sum(layer.groups * (layer.query_key_width + layer.value_width) for layer in read)
        before = sum(layer.groups * 2 * layer.width for layer in read)
        return now / before if before else 1.0

    def __str__(self) -> str:
        done = f"{self.changed} of {len(self.layers)} attentions narrowed"
        lines = [f"{done}; a cache keeps {self.cache_share:.1%} of its bytes", *map(str, self.layers)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
