"""Which ranks to offer for a layer. Letters: D input, E output features, R rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from narrows.errors import InputError

if TYPE_CHECKING:
    from narrows._values import Form

SMALL = 1024  # min(D, E) up to which ranks are multiples of 16, above it of 32
SIZES = 20  # steps of numbers kept between none and the dense weight's


def menu(in_features: int, out_features: int, form: Form, *, multiple: int | None = None) -> tuple[int, ...]:
    """Return the ranks to offer for a layer in one form, ascending; none for dense.

    Every one holds fewer numbers than the dense weight: low-rank R (D + E), below rank D E / (D + E); pivot
    R (D + E - R), below rank min(D, E). Their numbers are spread evenly; at most 19 ranks.

    Args:
        in_features, out_features: D, E.
        form: "low-rank" or "pivot".
        multiple: of which ranks are; default 16 up to min(D, E) = 1024, above it 32.

    Raises:
        InputError: a size or `multiple` below 1.
    """
    D, E = in_features, out_features
    if min(D, E) < 1 or (multiple is not None and multiple < 1):
        raise InputError(f"in_features={D}, out_features={E} and multiple={multiple} must be at least 1.")
    step = multiple or (16 if min(D, E) <= SMALL else 32)
    if form == "dense":
        return ()
    sizes = [size / SIZES * D * E for size in range(1, SIZES)]
    exact = [_low_rank(D, E, size) if form == "low-rank" else _pivot(D, E, size) for size in sizes]
    most = -(-D * E // (D + E)) if form == "low-rank" else min(D, E)
    return tuple(sorted({rank for each in exact if (rank := _down(each, step)) < most}))


def _low_rank(D: int, E: int, size: float) -> float:
    """Return R with R (D + E) = size."""
    return size / (D + E)


def _pivot(D: int, E: int, size: float) -> float:
    """Return R with R (D + E - R) = size."""
    half = (D + E) / 2
    return half - math.sqrt(half * half - size)


def _down(rank: float, step: int) -> int:
    """Return the largest multiple of `step` up to `rank`, at least one."""
    return max(int(rank // step), 1) * step
