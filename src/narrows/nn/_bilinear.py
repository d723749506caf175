"""LowRankBilinear: S = scale x W^T y^T with W ~ b^T a, the scores of an attention head.

Letters: T tokens, U other tokens, D input, E output features, R rank, H heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from narrows._values import Factors
from narrows.errors import ShapeError
from narrows.nn._ordered import OrderedModule
from narrows.ops import bilinear_planned

if TYPE_CHECKING:
    from typing import Self

    from narrows._values import Kind, Plan


class LowRankBilinear(OrderedModule):
    """scale (x a^T)(y b^T)^T + mask, without y: Y = X.

    With D = E the state dict holds one `pair` ((H,) R, 2, D), rows of a and b in turn, so that
    Y = X reads x once at any rank; otherwise `a` ((H,) R, D) and `b` ((H,) R, E).

    With a plan, forward takes the rank that the plan names for T = x.shape[-2], as a prefix view.
    It takes the full rank where the plan says dense (there is no dense weight here), outside the
    measured lengths, while training (training mode with gradients on) and once the weights are no
    longer ordered. The plan is not part of the state dict; keep it with `Plan.to_json`.

    Attributes:
        heads: H, or None for weights without a leading dimension.
        scale: multiplies the scores, before the mask; None: 1.
    """

    kind: Kind = "bilinear"
    pair: Tensor
    a: Tensor
    b: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        *,
        heads: int | None = None,
        scale: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, rank)
        if heads is not None and heads < 1:
            raise ShapeError(f"heads={heads} must be at least 1, or None for weights without heads.")
        self.heads, self.scale = heads, scale
        lead = () if heads is None else (heads,)
        sizes = {"a": (*lead, rank, in_features), "b": (*lead, rank, out_features)}
        if in_features == out_features:
            sizes = {"pair": (*lead, rank, 2, in_features)}
        for name, size in sizes.items():
            # nn.Linear's start: uniform within 1 / sqrt(features).
            values = torch.empty(size, device=device, dtype=dtype).uniform_(-(size[-1] ** -0.5), size[-1] ** -0.5)
            self.register_parameter(name, nn.Parameter(values))

    @classmethod
    def from_factors(cls, factors: Factors, plan: Plan | None = None, *, scale: float | None = None) -> Self:
        """Return a module that holds a copy of the factors.

        Raises:
            ShapeError: the plan is for other sizes.
            InputError: the plan is not for "bilinear".
            RankError: the plan uses a rank above R, or a smaller one and the factors are not ordered.
        """
        heads = factors.heads if factors.a.ndim == 3 else None
        layer = cls(factors.in_features, factors.out_features, factors.rank, heads=heads, scale=scale, device="meta")
        for name, value in layer._layout(factors).items():
            setattr(layer, name, nn.Parameter(value))
        layer._declare(is_ordered=factors.is_ordered, certificate=factors.certificate)
        layer.plan = plan
        return layer

    @property
    def factors(self) -> Factors:
        """The factors, as views that share memory and gradients with the parameters."""
        ordered = self.is_ordered
        return Factors(*self._prefix(self.rank), self._certificate, is_ordered=ordered)

    def forward(self, x: Tensor, y: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """Return the scores (..., [H,] T, U).

        Args:
            x: (..., T, D); with heads, a batch they share is (B, 1, T, D).
            y: (..., U, E); None: Y = X.
            mask: as in `narrows.bilinear`.
        """
        return bilinear_planned(x, *self._prefix(self.rank), y, self.scale, mask, self._table())

    def extra_repr(self) -> str:
        """Return sizes, heads, scale, order and the plan's ranks."""
        return f"{super().extra_repr()}, heads={self.heads}, scale={self.scale}"

    def _layout(self, factors: Factors) -> dict[str, Tensor]:
        """Return contiguous copies of the factors under the parameters' names."""
        a, b = factors.a.detach(), factors.b.detach()
        if factors.in_features != factors.out_features:
            return {
                "a": a.clone(memory_format=torch.contiguous_format),
                "b": b.clone(memory_format=torch.contiguous_format),
            }
        return {"pair": torch.stack((a, b), dim=-2)}

    def _prefix(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return views of the first `rank` rows of a and b."""
        if self.in_features == self.out_features:
            return self.pair[..., :rank, 0, :], self.pair[..., :rank, 1, :]
        return self.a[..., :rank, :], self.b[..., :rank, :]

    def _weights(self) -> tuple[Tensor, ...]:
        return tuple(self.parameters(recurse=False))

    @property
    def _num_heads(self) -> int:
        return self.heads or 1
