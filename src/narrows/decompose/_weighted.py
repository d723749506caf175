"""Factors that are best for what enters the layer and for what the loss makes of its output.

Letters: D input features, E output features, K = min(D, E), R rank.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from narrows._cost import workspace_bytes
from narrows._machine import fitting
from narrows.decompose._operands import check_operand
from narrows.decompose._weighted_moment import Metric, check_not_negative, check_symmetric
from narrows.decompose._weighted_value import Weighted
from narrows.errors import InputError, NonFiniteError, ShapeError

if TYPE_CHECKING:
    from narrows._values import Method, Moments
    from narrows.decompose._weighted_moment import Side

WeightedMethod = Literal["one-sided", "two-sided"]


@torch.no_grad()
def weighted(
    weight_ED: torch.Tensor,
    moments: Moments,
    *,
    method: WeightedMethod,
    shrink_inputs: float = 0.02,
    shrink_gradients: float = 0.1,
) -> Weighted:
    """Return every rank of a weight from one decomposition, best for the data that `moments` saw.

    "one-sided" minimises E||(W - W_R) x||^2. "two-sided" minimises the growth of the loss to second
    order, tr(G (W - W_R) C (W - W_R)^T) / 2, with C = E[x x^T], G = E[g g^T] and the Fisher matrix
    taken as their Kronecker product (Martens and Grosse 2015). The work is done in float64 on
    the weight's device, where moments of another device are copied to; the only matrices that
    are decomposed have the smaller of the sizes D and E.

    Args:
        weight_ED: (E, D), as nn.Linear keeps it.
        moments: of this layer.
        method: "two-sided" needs `moments.gradients`.
        shrink_inputs, shrink_gradients: 0..1, the share of a moment that is replaced by a multiple
            of the identity with the same trace. 0 trusts the sample; moments of fewer tokens
            than features are then singular, and `floored` counts what was raised.

    Raises:
        InputError: an unknown method, no gradients, moments without energy or not symmetric and
            positive semidefinite, or a weight that is not a plain dense floating tensor.
        ShapeError, DtypeError, DeviceError, NonFiniteError: as their names say.
        ResourceError: it takes more memory than is free.
    """
    started = time.perf_counter()
    check_matrix("weight", weight_ED)
    check_method(method, moments)
    E, D = weight_ED.shape
    what, advice = f"decomposing a weight ({E}, {D}) with its moments in float64", "Free some, or leave it dense."
    with fitting(workspace_bytes(D, E), str(weight_ED.device), what=what, advice=advice):
        metric = Metric.of(
            weight_ED,
            ("moments.inputs", moments.inputs, shrink_inputs),
            ("moments.gradients", moments.gradients if method == "two-sided" else None, shrink_gradients),
        )
        parts = decompose(weight_ED.detach().to(torch.float64), metric)
        return parts.weighted(method, weight_ED.dtype, constant=0.0, started=started)


def check_method(method: str, moments: Moments) -> None:
    """Raise InputError for an unknown method, or one that needs gradients where there are none."""
    if method not in get_args(WeightedMethod):
        raise InputError(f"method={method!r} is not known. Use one of: {', '.join(get_args(WeightedMethod))}.")
    if method == "two-sided" and moments.gradients is None:
        raise InputError(
            "method='two-sided' needs moments.gradients, which are None: calibrate with gradients, "
            "or use method='one-sided'."
        )


def check_matrix(name: str, weight_ED: torch.Tensor) -> None:
    """Pass a weight (E, D) without heads.

    Raises:
        As `check_operand`; ShapeError also for heads.
    """
    check_operand(name, weight_ED)
    if weight_ED.ndim != 2:
        raise ShapeError(f"{name} {tuple(weight_ED.shape)} must be (E, D), without heads.")


@dataclass(frozen=True, eq=False)
class Parts:
    """What one eigendecomposition gave: a (K, D), b (K, E), squares (K,) of sigma, falling."""

    a: torch.Tensor
    b: torch.Tensor
    squares: torch.Tensor
    metric: Metric
    floored: int

    def weighted(self, method: Method, dtype: torch.dtype, *, constant: float | None, started: float) -> Weighted:
        """Return the finished value, with rows of a and b of equal norms.

        Only a scale for each rank keeps prefixes exact. Rounding to a floating dtype is relative to
        each element and so does not depend on it; equal norms keep both factors in the range of float16
        and give one int8 scale to rows alike.
        """
        norm_a, norm_b = (torch.linalg.vector_norm(x, dim=1) for x in (self.a, self.b))
        scale = torch.where((norm_a > 0) & (norm_b > 0), (norm_b / norm_a).sqrt(), 1.0)[:, None]
        sigma = self.squares.clamp(min=0).sqrt().cpu().numpy()
        return Weighted(
            method=method,
            a=self.a * scale,
            b=self.b / scale,
            sigma=sigma,
            norm=float(np.linalg.norm(sigma)),
            metric=self.metric,
            dtype=dtype,
            floored=self.floored,
            constant=constant,
            seconds=time.perf_counter() - started,
        )


def decompose(weight_ED: torch.Tensor, metric: Metric) -> Parts:
    """Return every rank of a float64 weight; on its smaller side, so with D < E as the transposed layer."""
    E, D = weight_ED.shape
    if E <= D:
        a, b, squares, floored = _output_form(weight_ED, metric.inputs, metric.gradients)
    else:
        b, a, squares, floored = _output_form(weight_ED.mT, metric.gradients, metric.inputs)
    return Parts(a, b, squares, metric, floored)


def _output_form(
    weight_ED: torch.Tensor, inner: Side | None, outer: Side | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Return a (E, D), b (E, E), squares (E,) and the floored eigenvalues of outer, for E <= D.

    With outer = L L^T and L^T W inner W^T L = U S^2 U^T, the best W_R is L^-T U_R U_R^T L^T W. The
    inner moment, of the larger side, is only multiplied by: it needs no root and no inverse,
    and may be singular. None stands for the identity.
    """
    root = None if outer is None else outer.root()
    rooted_ED = weight_ED if root is None else root.matrix.mT @ weight_ED
    gram_EE = rooted_ED @ (rooted_ED.mT if inner is None else inner.times(rooted_ED.mT))
    name = "the weight's own moment" if inner is None else f"the weight's product with {inner.name}"
    if not bool(torch.isfinite(gram_EE).all()):
        raise NonFiniteError(f"{name} overflows float64: divide the weight by a power of two first.")
    check_symmetric(name, gram_EE)
    squares, vectors = torch.linalg.eigh(gram_EE)
    check_not_negative(name, squares)
    squares, u_EE = squares.flip(0), vectors.flip(1)
    b_EE = u_EE if root is None else root.solve_transposed(u_EE)
    return u_EE.mT @ rooted_ED, b_EE.mT, squares, 0 if root is None else root.floored
