"""Second moments of heads: what every joint form of attention is computed from, in the small space of one head.

Letters: D input features, H heads, G groups (key heads), K width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from narrows.errors import NonFiniteError, ShapeError

if TYPE_CHECKING:
    from narrows._values import Moments


def head_moments(
    weight: torch.Tensor, bias: torch.Tensor | None, moments: Moments, *, heads: int, centred: bool = False
) -> torch.Tensor:
    """Return E[z z^T] of every head's vector z = W_h x + b_h, (H, K, K) float64.

    The bias is inside: x counts as [x; 1], whose second moment the mean completes.

    Args:
        weight: (H K, D), heads one after the other, as nn.Linear keeps them.
        bias: (H K,), or None.
        moments: of x; its `inputs` (D, D) and `mean` (D,).
        heads: H.
        centred: of z less its mean. For keys without rotary positions: what all keys have in common adds one number
            to all scores of a row, which the softmax does not see.

    Raises:
        ShapeError: sizes that do not fit together.
        NonFiniteError: NaN or Inf in the weight, the bias or the moments.
    """
    _check_heads(weight, bias, moments, heads)
    w_HKD = weight.detach().to(torch.float64).reshape(heads, -1, weight.shape[1])
    inputs, mean = (t.to(w_HKD) for t in (moments.inputs, moments.mean))
    second_HKK = w_HKD @ inputs @ w_HKD.mT
    if centred:
        mean_HK = w_HKD @ mean
        second_HKK = second_HKK - mean_HK[..., None] * mean_HK[:, None]
    elif bias is not None:
        b_HK = bias.detach().to(torch.float64).reshape(heads, -1)
        cross_HKK = (w_HKD @ mean)[..., None] * b_HK[:, None]
        second_HKK = second_HKK + cross_HKK + cross_HKK.mT + b_HK[..., None] * b_HK[:, None]
    if not torch.isfinite(second_HKK).all():
        raise NonFiniteError(
            f"weight {tuple(weight.shape)}, its bias or the moments of its input hold NaN or Inf: calibrate again, "
            "on text for which the model gives finite activations."
        )
    return (second_HKK + second_HKK.mT) / 2


def grouped(query_HKK: torch.Tensor, groups: int) -> torch.Tensor:
    """Return the sum over the query heads that share a key head, (G, K, K)."""
    return query_HKK.reshape(groups, -1, *query_HKK.shape[1:]).sum(dim=1)


def identity(second_HKK: torch.Tensor) -> torch.Tensor:
    """Return the map of every head to itself, of the shape of its second moment."""
    return torch.eye(second_HKK.shape[-1], dtype=second_HKK.dtype, device=second_HKK.device).expand_as(second_HKK)


@dataclass(frozen=True, eq=False)
class Roots:
    """L with L L^T = a second moment, one for each of G, and its pseudo-inverse.

    Attributes:
        matrix: L, (G, K, K): eigenvectors times the roots of their eigenvalues.
        inverse: L^+, (G, K, K); along directions that nothing came through it is 0.
    """

    matrix: torch.Tensor
    inverse: torch.Tensor

    @classmethod
    def of(cls, second_GKK: torch.Tensor) -> Roots:
        """Return the roots; eigenvalues below K eps of the largest are what rounding leaves of a zero."""
        values_GK, vectors_GKK = torch.linalg.eigh(second_GKK)
        floor = values_GK.amax(-1, keepdim=True) * values_GK.shape[-1] * torch.finfo(values_GK.dtype).eps
        roots_GK = torch.where(values_GK > floor, values_GK, 0).sqrt()
        inverse_GK = torch.where(roots_GK > 0, 1 / roots_GK, 0)
        return cls(vectors_GKK * roots_GK[:, None], inverse_GK[..., None] * vectors_GKK.mT)


def relative(lost: torch.Tensor, total: torch.Tensor) -> float:
    """Return sqrt(lost / total) of squares summed over all heads; 0 where there is nothing to lose."""
    share = float(lost.sum()) / (float(total.sum()) or 1.0)
    return math.sqrt(max(share, 0.0))


def check_pair(query_GKK: torch.Tensor, key_GKK: torch.Tensor) -> None:
    """Raise ShapeError unless these are second moments of the same number of heads of one width."""
    shapes = f"query {tuple(query_GKK.shape)} and key {tuple(key_GKK.shape)}"
    if query_GKK.ndim != 3 or query_GKK.shape != key_GKK.shape or query_GKK.shape[-1] != query_GKK.shape[-2]:
        raise ShapeError(
            f"{shapes} must both be (G, K, K): moments of each key head, and of its query heads summed (grouped())."
        )


def _check_heads(weight: torch.Tensor, bias: torch.Tensor | None, moments: Moments, heads: int) -> None:
    if weight.ndim != 2 or heads < 1 or weight.shape[0] % heads:
        raise ShapeError(f"weight {tuple(weight.shape)} must be (H K, D) with H={heads} heads.")
    if moments.mean.shape != weight.shape[1:]:
        raise ShapeError(
            f"weight {tuple(weight.shape)} reads D={weight.shape[1]} features; the moments are of "
            f"{moments.mean.shape[0]}."
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"bias {tuple(bias.shape)} must be (H K,) = ({weight.shape[0]},).")
