"""One point of a sweep, and what a check of it found. Crosses the pipe between parent and child as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from narrows import _cost

if TYPE_CHECKING:
    from narrows._values import Cache, Mode, Problem


@dataclass(frozen=True, slots=True)
class Point:
    """What is timed: one (rank, variant) at one length under one condition; rank None is dense."""

    tokens: int
    rank: int | None
    variant: str
    mode: Mode
    cache: Cache

    def to_json(self) -> dict[str, Any]:
        """Return the point as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        what = f"dense {self.variant}" if self.rank is None else f"rank {self.rank} {self.variant}"
        return f"{self.tokens} tokens, {what}, {self.mode} {self.cache}"


@dataclass(frozen=True, slots=True)
class Check:
    """What is known of a point before it is timed; fields as in `Row`."""

    status: str
    reason: str = ""
    launches: int = 0
    flops: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    memory_bytes: int = 0
    peak_memory_bytes: int | None = None
    rounding: float | None = None
    worst: float | None = None

    @property
    def can_be_timed(self) -> bool:
        """Its output was right."""
        return self.status == "ok"

    @property
    def is_final(self) -> bool:
        """A later run would find the same; the others (killed, did not fit, timed out) are tried again."""
        return self.status in {"ok", "refused", "wrong result"}


def cost_of(point: Point, problem: Problem) -> _cost.Cost:
    """Return FLOPs and bytes of one call."""
    if point.rank is None:
        return _cost.dense_cost(problem, point.variant)
    return _cost.thin_cost(problem, point.rank)
