"""The problem that a call's operands pose."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from narrows._values import Problem

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Kind


def problem_of(kind: Kind, x: Tensor, a: Tensor, b: Tensor, y: Tensor | None) -> Problem:
    """Return the problem of these operands: x (..., T, D), a ([H,] R, D), b ([H,] R, E), y (..., U, E) or None."""
    return Problem(
        kind=kind,
        tokens=prod(x.shape[:-1]),
        in_features=a.shape[-1],
        out_features=b.shape[-1],
        other_tokens=None if y is None else prod(y.shape[:-1]),
        heads=a.shape[0] if a.ndim == 3 else 1,
        dtype=str(x.dtype),
        device=str(x.device),
    )
