"""The pivot form of low-rank factors: R of the weight's rows, and what makes the others of them.

Letters: D input, E output features, R rank.
"""

from __future__ import annotations

import torch

from narrows._values import Factors, PivotFactors
from narrows.decompose._operands import check_operand
from narrows.errors import ShapeError

# A swap makes the volume of the pivots larger by at least this factor, and it is bounded: swaps end.
GROWTH = 1.05


@torch.no_grad()
def pivot(factors: Factors, *, dtype: torch.dtype | None = None) -> PivotFactors:
    """Return the weight b^T a as R of its own rows, and the E - R others as combinations of them.

    R (D + E - R) numbers in the place of R (D + E) (PIFA, Zhao et al. 2025). The rows are
    chosen so that no combination has a large element, because rounding of the pivots enters the
    others multiplied by it: partial pivoting (LU) makes a start, then a row that was left out takes
    the place of a pivot as long as that makes the volume of the pivots 1.05 times as large
    (Goreinov, Oseledets, Savostyanov, Tyrtyshnikov and Zamarashkin 2010). No element of `rest` is
    then above 1.05 before rounding. Works in float64 on the factors' device.

    Args:
        factors: a (R, D), b (R, E) with R <= E, without heads; float64 where the result is to be accurate.
        dtype: of rows and rest; default the factors'.

    Raises:
        ShapeError: factors with heads, or R > E.
        NonFiniteError: NaN or Inf in the factors.
    """
    a_RD, b_RE = factors.a, factors.b
    if a_RD.ndim != 2 or factors.rank > factors.out_features:
        raise ShapeError(f"factors a {tuple(a_RD.shape)}, b {tuple(b_RE.shape)} must be (R, D), (R, E) with R <= E.")
    check_operand("factors.a", a_RD)
    check_operand("factors.b", b_RE)
    b_ER = b_RE.to(torch.float64).mT
    order_E, rest = _maximal(*_start(b_ER))
    rows_RD = b_ER[order_E[: factors.rank]] @ a_RD.to(torch.float64)
    return _sorted(rows_RD, rest, order_E, dtype or a_RD.dtype)


def _start(b_ER: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an order (E,) of the rows, pivots first, and what makes the others of them, (E - R, R).

    With b[order] = L U, that is L_rest L_pivots^-1. U takes no part, so factors of a smaller true
    rank than R are no obstacle.
    """
    E, R = b_ER.shape
    lu, swaps, _ = torch.linalg.lu_factor_ex(b_ER)
    order = list(range(E))
    for i, other in enumerate(swaps.tolist()):
        order[i], order[other - 1] = order[other - 1], order[i]
    rest = torch.linalg.solve_triangular(lu[:R], lu[R:], upper=False, left=False, unitriangular=True)
    return torch.tensor(order, device=b_ER.device), rest


def _maximal(order_E: torch.Tensor, rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return order and rest after swaps of a pivot with another row, until no element is above GROWTH.

    The largest element p = rest[i, j] is the factor by which the volume grows. The swap of row i and pivot j
    is an update of rank 1.
    """
    count, R = rest.shape
    order_E, rest = order_E.clone(), rest.contiguous()
    while count:
        i, j = divmod(int(rest.abs().argmax()), R)
        p = float(rest[i, j])
        if abs(p) <= GROWTH:
            break
        row, column = rest[i].clone(), rest[:, j].clone()
        row[j] -= 1
        column[i] += 1
        rest.addr_(column, row, alpha=-1 / p)
        order_E[[j, R + i]] = order_E[[R + i, j]]
    return order_E, rest


def _sorted(rows_RD: torch.Tensor, rest: torch.Tensor, order_E: torch.Tensor, dtype: torch.dtype) -> PivotFactors:
    """Return the form with both parts of the order rising, so that neighbours are read and written together."""
    R = len(rows_RD)
    pivots, others = order_E[:R].argsort(), order_E[R:].argsort()
    order = torch.cat((order_E[:R][pivots], order_E[R:][others]))
    return PivotFactors(rows_RD[pivots].to(dtype), rest[others][:, pivots].to(dtype), order)
