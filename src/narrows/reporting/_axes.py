"""Ranges and ticks of axes, from the values that they must show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from narrows.reporting._plot import Axis
from narrows.reporting._text import bytes_text, time_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FEWEST_TICKS = 3
MOST_TICKS = 7
ERROR_STEPS = (0.0, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def sizes_axis(label: str, sizes: Sequence[int], *, room: float = 0.0) -> Axis:
    """Return a log2 axis with a tick at every measured size.

    Args:
        label: the axis' name.
        sizes: measured tokens or ranks, ascending.
        room: octaves left free before the first size, for labels.

    """
    low, high = min(sizes), max(sizes)
    ticks = tuple((float(size), str(size)) for size in sizes)
    return Axis(label, low * 2.0 ** -(0.3 + room), high * 2.0**0.3, ticks)


def categories_axis(label: str, names: Sequence[str]) -> Axis:
    """Return an axis of equally spaced names at 0, 1, 2, ..."""
    return Axis(label, -0.5, len(names) - 0.5, tuple((float(i), name) for i, name in enumerate(names)), "linear")


def ratio_axis(label: str, values: Iterable[float]) -> Axis:
    """Return a log axis of ratios that shows 0.8 to 1.25 at least, so that ties look like ties."""
    low, high = _span([*values, 0.8, 1.25])
    ticks = _powers(2.0, low, high, (1.0,))
    if len(ticks) < FEWEST_TICKS:
        ticks = _even(low, high)
    return Axis(label, low, high, tuple((tick, f"{tick:.4g}x") for tick in ticks))


def error_axis(label: str, values: Iterable[float]) -> Axis:
    """Return a square-root axis of relative errors from 0: exact, 1 % and 100 % all have room on it."""
    high = 1.05 * max([*values, ERROR_STEPS[1]])
    ticks = tuple((step, f"{100 * step:g}%" if step else "0") for step in ERROR_STEPS if step <= high)
    return Axis(label, -0.002 * high, high, ticks, "root")  # the root of 0.002 is 4 % of the width: room before 0


def time_axis(label: str, values: Iterable[float]) -> Axis:
    """Return a log axis of times in ns."""
    low, high = _span(values)
    ticks = _powers(10.0, low, high, (1.0,))
    if len(ticks) < FEWEST_TICKS:
        ticks = _powers(10.0, low, high, (1.0, 2.0, 5.0))
    if len(ticks) < FEWEST_TICKS:
        ticks = _even(low, high)
    return Axis(label, low, high, tuple((tick, _plain(time_text(tick))) for tick in ticks))


def memory_axis(label: str, values: Iterable[float]) -> Axis:
    """Return a log2 axis of bytes with at most seven ticks."""
    low, high = _span(values)
    every = _powers(2.0, low, high, (1.0,))
    ticks = every[:: -(-len(every) // MOST_TICKS)] if every else []
    return Axis(label, low, high, tuple((tick, _plain(bytes_text(tick))) for tick in ticks))


def _span(values: Iterable[float]) -> tuple[float, float]:
    """Return the range of the finite positive values with 8 % of it free at both ends."""
    known = [value for value in values if 0 < value < math.inf]
    low, high = min(known), max(known)
    free = max((high / low) ** 0.08, 1.04)
    return low / free, high * free


def _powers(base: float, low: float, high: float, steps: tuple[float, ...]) -> list[float]:
    first = math.floor(math.log(low, base))
    last = math.ceil(math.log(high, base))
    found = [base**power * step for power in range(first, last + 1) for step in steps]
    return [value for value in found if low <= value <= high]


def _even(low: float, high: float) -> list[float]:
    """Return three to six round, evenly spaced values."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(step * size for step in _STEPS if step * size >= rough)
    first = math.ceil(low / step)
    return [round(k * step, 10) for k in range(first, math.floor(high / step) + 1)]


def _plain(text: str) -> str:
    number, unit = text.split(" ")
    return f"{float(number):g} {unit}"
