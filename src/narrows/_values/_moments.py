"""What calibration keeps of one linear layer: averages over tokens.

Letters: D input, E output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from narrows.errors import ShapeError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of what enters a layer and of the loss gradient at what leaves it.

    Attributes:
        inputs: (D, D) float64, E[x x^T] over tokens, uncentred.
        mean: (D,) float64, E[x].
        gradients: (E, E) float64, E[g g^T] of g = dL/dy, one token at a time; None: not calibrated.
        tokens: how many tokens the averages are over.
    """

    inputs: torch.Tensor
    mean: torch.Tensor
    gradients: torch.Tensor | None
    tokens: int

    def __post_init__(self) -> None:
        D = self.inputs.shape[-1]
        if self.inputs.shape != (D, D) or self.mean.shape != (D,):
            raise ShapeError(
                f"inputs {tuple(self.inputs.shape)} and mean {tuple(self.mean.shape)} must be (D, D) and (D,)."
            )
        if self.gradients is not None and self.gradients.shape != (self.gradients.shape[0],) * 2:
            raise ShapeError(f"gradients {tuple(self.gradients.shape)} must be (E, E).")
        if self.tokens < 1:
            raise ShapeError(f"tokens={self.tokens}: moments need at least one token.")
