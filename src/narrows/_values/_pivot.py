"""The pivot form of a low-rank weight: some of its rows, and what makes the others of them.

Letters: D input, E output features, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from narrows.errors import DtypeError, ShapeError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class PivotFactors:
    """weight_ED[order] = [rows; rest @ rows]: R (D + E - R) numbers, never more than the D E of the weight.

    Attributes:
        rows: (R, D), the weight's own rows order[:R].
        rest: (E - R, R); rows order[R:] of the weight are `rest @ rows`.
        order: (E,) int64, a permutation of the output features: pivots first.
    """

    rows: torch.Tensor
    rest: torch.Tensor
    order: torch.Tensor

    def __post_init__(self) -> None:
        rows, rest, order = self.rows, self.rest, self.order
        R, E = rows.shape[0], order.shape[0]
        if rows.ndim != 2 or rest.shape != (E - R, R) or order.ndim != 1:
            raise ShapeError(
                f"rows {tuple(rows.shape)}, rest {tuple(rest.shape)} and order {tuple(order.shape)} must be (R, D), "
                "(E - R, R) and (E,)."
            )
        if rows.dtype != rest.dtype:
            raise DtypeError(f"rows are {rows.dtype} and rest is {rest.dtype}: give both the same dtype.")

    @property
    def rank(self) -> int:
        """R."""
        return int(self.rows.shape[0])

    @property
    def in_features(self) -> int:
        """D."""
        return int(self.rows.shape[1])

    @property
    def out_features(self) -> int:
        """E."""
        return int(self.order.shape[0])

    def dense(self) -> torch.Tensor:
        """Return the weight (E, D) that this form stands for."""
        weight_ED = self.rows.new_empty(self.out_features, self.in_features)
        weight_ED[self.order[: self.rank]] = self.rows
        weight_ED[self.order[self.rank :]] = self.rest @ self.rows
        return weight_ED
