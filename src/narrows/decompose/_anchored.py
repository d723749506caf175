"""Every rank of a weight that takes the compressed input to the dense output.

Letters: D input features, E output features, R rank.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from narrows.decompose._weighted import check_matrix, decompose
from narrows.decompose._weighted_moment import Metric, Moment, check_square

if TYPE_CHECKING:
    from narrows.decompose._weighted_value import Weighted


@torch.no_grad()
def anchored(
    weight_ED: torch.Tensor,
    cross_DD: torch.Tensor,
    inputs_DD: torch.Tensor,
    *,
    gradients_EE: torch.Tensor | None = None,
    dense_inputs_DD: torch.Tensor | None = None,
    shrink_inputs: float = 0.02,
    shrink_gradients: float = 0.1,
) -> Weighted:
    """Return every rank of the weight W' that is nearest to W x when it reads x' in the place of x.

    x enters the layer in the dense model, x' in the compressed one (reduced-rank regression,
    Izenman 1975; for models AA-SVD 2026). With A = E[x x'^T], B = E[x' x'^T], C = E[x x^T] and any
    positive definite G,

        E (W x - W' x')^T G (W x - W' x') = tr G (W C W^T - W A W'^T - W' A^T W^T + W' B W'^T),

    and with T = W A B^-1, so that W A = T B, completing the square gives

        tr G (W' - T) B (W' - T)^T  +  tr G (W C W^T - T B T^T).

    The second term does not know W': the best W' of rank R is the best approximation of T, whatever
    the weights G, in the norm that `weighted` uses with B in the place of C. That term is
    `Weighted.constant`, what no rank can mend.

    Shrinkage adds to the sample an isotropic x = x' with the mean energy of x', so A, B and C shrink
    alike, T = W + (1 - s) W (A - B) B_s^-1, and where x' = x, T is W itself. With no shrinkage and
    a singular B, T is W along directions that x' never took.

    Args:
        weight_ED: (E, D), the dense weight W.
        cross_DD: (D, D), A, dense input first.
        inputs_DD: (D, D), B.
        gradients_EE: (E, E), G = E[g g^T]: damage is then in nats a token. None: the output's squared error.
        dense_inputs_DD: (D, D), C; None: `constant` is None.
        shrink_inputs, shrink_gradients: 0..1, as in `weighted`.

    Raises:
        As `weighted`.
    """
    started = time.perf_counter()
    check_matrix("weight", weight_ED)
    metric = Metric.of(weight_ED, ("inputs", inputs_DD, shrink_inputs), ("gradients", gradients_EE, shrink_gradients))
    return anchored_in(metric, weight_ED, cross_DD, dense_inputs_DD, started=started)


def anchored_in(
    metric: Metric,
    weight_ED: torch.Tensor,
    cross_DD: torch.Tensor,
    dense_inputs_DD: torch.Tensor | None = None,
    *,
    started: float,
) -> Weighted:
    """Return what `anchored` does, in a norm that is already there."""
    check_square("cross", cross_DD, weight_ED.shape[1])
    shift = _Shift.of(weight_ED.detach().to(torch.float64), cross_DD, metric)
    constant = None if dense_inputs_DD is None else shift.constant(dense_inputs_DD)
    parts = decompose(shift.weight_ED + shift.change_ED, metric)
    return parts.weighted("anchored", weight_ED.dtype, constant=constant, started=started)


@dataclass(frozen=True, eq=False)
class _Shift:
    """How the target T differs from the weight W.

    Attributes:
        weight_ED: W, float64.
        cross_DD: A, float64.
        change_ED: T - W = (1 - s) W (A - B) B_s^-1.
    """

    weight_ED: torch.Tensor
    cross_DD: torch.Tensor
    change_ED: torch.Tensor
    metric: Metric

    @classmethod
    def of(cls, weight_ED: torch.Tensor, cross_DD: torch.Tensor, metric: Metric) -> _Shift:
        """Return the shift; B_s is decomposed, D x D, by Cholesky where it is shrunk."""
        inputs = metric.inputs
        cross = cross_DD.detach().to(inputs.matrix)
        moved_ED = (1 - inputs.share) * (weight_ED @ (cross - inputs.matrix))
        return cls(weight_ED, cross, inputs.root().solve_both(moved_ED.mT).mT, metric)

    def constant(self, dense_inputs_DD: torch.Tensor) -> float:
        """Return tr G (W C_s W^T - T B_s T^T), halved with gradients.

        As tr G ((1 - s) W E[(x - x')(x - x')^T] W^T - (T - W) B_s (T - W)^T): a small constant is
        no difference of large numbers then.
        """
        inputs, gradients, cross = self.metric.inputs, self.metric.gradients, self.cross_DD
        of = Moment.of("dense_inputs", dense_inputs_DD, like=self.weight_ED, size=len(cross), share=inputs.share)
        apart_ED = self.weight_ED @ (of.matrix - cross - cross.mT + inputs.matrix)
        left_ED = self.weight_ED if gradients is None else gradients.times(self.weight_ED)
        total = (1 - inputs.share) * float((left_ED * apart_ED).sum()) - self.metric.norm(self.change_ED) ** 2
        return max(total, 0.0) * (0.5 if self.metric.is_in_nats else 1.0)
