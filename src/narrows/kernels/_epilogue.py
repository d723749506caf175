"""What happens to bilinear scores after the second matmul, and how plain torch does it.

Letters: T tokens, U other tokens, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Epilogue:
    """scale s -> softcap tanh(s / softcap) -> mask -> causal, in this order (Gemma's); None leaves a part out.

    Attributes:
        scale: multiplies the scores.
        softcap: above 0; keeps the scores within -softcap..softcap.
        mask: broadcasts to (..., [H,] T, U). bool: False becomes -inf; floating: added.
        is_causal: position u of y stays only where u <= t, both counted from 0; the rest becomes -inf.
    """

    scale: float | None = None
    softcap: float | None = None
    mask: Tensor | None = None
    is_causal: bool = False

    def apply_(self, scores: Tensor) -> Tensor:
        """Return the finished scores, in the memory of `scores` and rounded to their dtype at every step."""
        if self.scale is not None:
            scores *= self.scale
        if self.softcap is not None:
            scores.div_(self.softcap).tanh_().mul_(self.softcap)
        if self.mask is not None:
            if self.mask.dtype == torch.bool:
                scores.masked_fill_(~self.mask, -torch.inf)
            else:
                scores += self.mask
        if self.is_causal:
            scores.masked_fill_(is_future(scores), -torch.inf)
        return scores


PLAIN = Epilogue()


def is_future(scores: Tensor) -> Tensor:
    """Return (T, U) bool: True where column u > row t."""
    T, U = scores.shape[-2:]
    return torch.ones(T, U, dtype=torch.bool, device=scores.device).triu_(1)
