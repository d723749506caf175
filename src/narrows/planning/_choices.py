"""Choices from measured points: the figures of a plan's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._values import Choice

if TYPE_CHECKING:
    from narrows.planning._frontier import Candidate, Point


def thin_choice(point: Point, taken: Candidate, reasons: tuple[str, ...]) -> Choice:
    """Return a candidate of a measured length as a choice."""
    speedup = taken.measured.speedup
    return Choice(
        tokens_from=point.tokens,
        tokens_to=point.tokens,
        rank=taken.rank,
        implementation=taken.variant,
        time_ns=taken.measured.time_ns,
        dense_ns=point.dense.time_ns,
        speedup=speedup.value,
        speedup_low=speedup.low,
        speedup_high=speedup.high,
        bytes=taken.num_bytes,
        error=taken.error.upper95,
        reasons=reasons,
    )


def dense_choice(point: Point, reasons: tuple[str, ...]) -> Choice:
    """Return dense at a measured length as a choice."""
    return Choice(
        tokens_from=point.tokens,
        tokens_to=point.tokens,
        rank=None,
        implementation=point.dense.row.variant,
        time_ns=point.dense.time_ns,
        dense_ns=point.dense.time_ns,
        speedup=1.0,
        speedup_low=1.0,
        speedup_high=1.0,
        bytes=point.dense_bytes,
        error=0.0,
        reasons=reasons,
    )


def thin_between(left: Point, right: Point, ends: tuple[Candidate, Candidate], reasons: tuple[str, ...]) -> Choice:
    """Return one candidate, measured at both ends, as the choice between them."""
    at_left, at_right = ends
    worse = min((at_left, at_right), key=lambda c: c.measured.speedup.value).measured.speedup
    return Choice(
        tokens_from=left.tokens + 1,
        tokens_to=right.tokens - 1,
        rank=at_left.rank,
        implementation=at_left.variant,
        time_ns=None,
        dense_ns=None,
        speedup=worse.value,
        speedup_low=worse.low,
        speedup_high=worse.high,
        bytes=at_left.num_bytes,
        error=max(at_left.error.upper95, at_right.error.upper95),
        reasons=reasons,
    )


def dense_between(left: Point, right: Point, reasons: tuple[str, ...]) -> Choice:
    """Return dense as the choice between two measured lengths."""
    return Choice(
        tokens_from=left.tokens + 1,
        tokens_to=right.tokens - 1,
        rank=None,
        implementation=right.dense.row.variant,
        time_ns=None,
        dense_ns=None,
        speedup=1.0,
        speedup_low=1.0,
        speedup_high=1.0,
        bytes=max(left.dense_bytes, right.dense_bytes),
        error=0.0,
        reasons=reasons,
    )
