"""The dense chain that the thin one is compared with, in each order of its matmuls.

Letters: T tokens, U other tokens, D input, E output features, H heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.errors import InputError
from narrows.kernels._matmul import matmul, project

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Problem

_LAUNCHES = {"linear": 1, "left": 2, "right": 2}


def dense_associations(problem: Problem) -> tuple[str, ...]:
    """Return the orders in which the dense chain of a problem can run.

    "linear": x W^T. "left": (x W^T) y^T, the origin's. "right": x (y W)^T. "given": a bilinear
    weight that came as a product, as it came: `Given.run` on its operands.
    """
    if problem.kind == "linear":
        return ("linear",)
    return ("left", "right") if problem.given_rank is None else ("left", "right", "given")


def dense_launches(association: str, problem: Problem) -> int:
    """Return how many matmuls one call of `dense_run`, or of `Given.run`, launches."""
    if association == "given":
        return 2 if problem.is_self else 3
    _check(association)
    return _LAUNCHES[association]


def dense_run(
    association: str, x: Tensor, weight: Tensor, y: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """Return the dense chain's result, (..., [H,] T, E) for linear, (..., [H,] T, U) for bilinear.

    Args:
        association: "linear", "left" or "right".
        x: (..., T, D).
        weight: (E, D) or (H, E, D).
        y: (..., U, E); None: Y = X. Not read for "linear".
        out: contiguous, receives the result.
    """
    _check(association)
    other = x if y is None else y
    if association == "linear":
        return matmul(x, weight.mT, out=out)
    if association == "left":
        return matmul(project(x, weight), other.mT, out=out)
    return matmul(x, matmul(other, weight).mT, out=out)


def _check(association: str) -> None:
    if association not in _LAUNCHES:
        raise InputError(f"association={association!r} cannot be run here. Use one of: {', '.join(_LAUNCHES)}.")
