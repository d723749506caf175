"""Values narrowed together with what the output layer makes of them.

A head adds W_o,h c to the block's output, with c = sum_j p_j v_j the mixed value. For c' = A c, which a narrower W_v
gives because mixing is linear, and W_o' in place of W_o,h, the pair that loses least of E ||W_o,h c - W_o' A c||^2 is
the best rank r of W_o,h L with L L^T = E[c c^T] (CLOVER 2024 and A3 2025 use the values' own moments, which leave the
mixing out). Query heads that share a key head share its values: their W_o,h are stacked, each beside the others.

Letters: H heads, G groups (key heads), K width of a value, R narrow width, E output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from narrows._values import Certificate
from narrows.decompose._query_key import check_width
from narrows.decompose._query_key_moments import Roots, grouped
from narrows.errors import NonFiniteError, ShapeError


@dataclass(frozen=True, eq=False)
class ValueMaps:
    """Maps of the values and of the output layer's columns.

    Attributes:
        value: (G, R, K) float64: v' = value v, weights and biases alike.
        output: (G, K, R) float64: W_o,h' = W_o,h output, for every head of the group.
        error: root of sum over heads of E ||what a head adds - what it adds now||^2 / the sum of E ||what it adds||^2.
    """

    value: torch.Tensor
    output: torch.Tensor
    error: float

    @property
    def width(self) -> int:
        """R."""
        return int(self.value.shape[1])


@dataclass(frozen=True, eq=False)
class ValueOutput:
    """Every width of the values of one attention layer, from one decomposition.

    Attributes:
        value: (G, K, K) float64; output: (G, K, K) float64: the first R rows of one and columns of the other.
        sigma: (G, K) float64, falling.
    """

    value: torch.Tensor
    output: torch.Tensor
    sigma: torch.Tensor

    @cached_property
    def certificate(self) -> Certificate:
        """The error at every width; all figures are of the norm weighted by data."""
        norm = float(torch.linalg.vector_norm(self.sigma))
        values = tuple(tuple(row) for row in self.sigma.tolist())
        return Certificate("joint", values, norm, residual=0.0)

    def at(self, width: int) -> ValueMaps:
        """Return the best maps to values of this width.

        Raises:
            RankError: outside 1..K.
        """
        check_width(width, self.sigma.shape[-1])
        return ValueMaps(self.value[:, :width], self.output[..., :width], self.certificate.error(width))


@torch.no_grad()
def value_output(output_EO: torch.Tensor, mixed_HKK: torch.Tensor, *, groups: int) -> ValueOutput:
    """Return every narrower form of the values and the output layer.

    Exact for one query head a key head. Where several share their values, the moment of each group is the mean of its
    heads': exact where they mix alike.

    Args:
        output_EO: (E, H K), the output layer's weight.
        mixed_HKK: (H, K, K), second moments of each head's mixed values (`mixed_moments`), or of the values
            themselves (`head_moments`) where those are not known.
        groups: G, dividing H.

    Raises:
        ShapeError: sizes that do not fit together.
        NonFiniteError: NaN or Inf in the weight or the moments.
    """
    H, K = mixed_HKK.shape[0], mixed_HKK.shape[-1]
    if mixed_HKK.shape != (H, K, K) or output_EO.ndim != 2 or output_EO.shape[1] != H * K or groups < 1 or H % groups:
        raise ShapeError(
            f"output {tuple(output_EO.shape)} and mixed {tuple(mixed_HKK.shape)} must be (E, H K) and (H, K, K), "
            f"groups={groups} dividing H."
        )
    out_HEK = output_EO.detach().to(torch.float64).reshape(-1, H, K).movedim(1, 0)
    if not (torch.isfinite(out_HEK).all() and torch.isfinite(mixed_HKK).all()):
        raise NonFiniteError(f"output {tuple(output_EO.shape)} or its moments hold NaN or Inf: calibrate again.")
    roots = Roots.of(grouped(mixed_HKK, groups) * groups / H)
    # W^T W of the stack in place of the stack itself: (K, K) for any number of heads.
    stack_GKK = grouped(out_HEK.mT @ out_HEK, groups)
    values_GK, vectors_GKK = torch.linalg.eigh(roots.matrix.mT @ stack_GKK @ roots.matrix)
    sigma_GK, v_GKK = values_GK.clamp(min=0).sqrt().flip(-1), vectors_GKK.flip(-1)
    return ValueOutput(v_GKK.mT @ roots.inverse, roots.matrix @ v_GKK, sigma_GK)


def mixed_moments(inputs_OO: torch.Tensor, *, heads: int) -> torch.Tensor:
    """Return the second moment of each head's mixed values, (H, K, K): blocks of that of the output layer's input.

    Args:
        inputs_OO: (H K, H K), `Moments.inputs` of the output layer.
        heads: H.
    """
    width = inputs_OO.shape[-1]
    if inputs_OO.shape != (width, width) or heads < 1 or width % heads:
        raise ShapeError(f"inputs {tuple(inputs_OO.shape)} must be (H K, H K) with H={heads} heads.")
    blocks = inputs_OO.to(torch.float64).reshape(heads, width // heads, heads, width // heads)
    return blocks.diagonal(dim1=0, dim2=2).movedim(-1, 0)
