"""Cells of each kind of number: the value for machines, the text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.reporting._table import Cell, Column
from narrows.reporting._text import MISSING, bytes_text, error_text, interval_text, ratio_text, time_text

if TYPE_CHECKING:
    from narrows._stats import Ratio


def number(value: int) -> Cell:
    """Return a whole number."""
    return Cell(value, str(value))


def word(text: str) -> Cell:
    """Return a text; empty shows as "-"."""
    return Cell(text, text or "-")


def time(time_ns: float | None) -> Cell:
    """Return a time in ns."""
    return MISSING if time_ns is None else Cell(time_ns, time_text(time_ns))


def size(num_bytes: int | None) -> Cell:
    """Return bytes."""
    return MISSING if num_bytes is None else Cell(num_bytes, bytes_text(num_bytes))


def error(value: float | None) -> Cell:
    """Return a relative error."""
    return MISSING if value is None else Cell(value, error_text(value))


def ratio(value: Ratio | None) -> Cell:
    """Return a ratio; "~" before it says tie."""
    return MISSING if value is None else Cell(value.value, ratio_text(value))


def interval(value: Ratio | None) -> Cell:
    """Return a ratio, its text with the 99 % interval."""
    return MISSING if value is None else Cell(value.value, interval_text(value))


def share(value: float | None) -> Cell:
    """Return limit / time."""
    return MISSING if value is None else Cell(value, f"{value:.0%}")


def left(name: str, title: str) -> Column:
    """Return a column of words."""
    return Column(name, title, "left")
