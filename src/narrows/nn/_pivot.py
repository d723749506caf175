"""PivotLinear: nn.Linear with its weight as some of its rows and what makes the others of them.

Letters: D input, E output features, R rank, T tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from narrows._values import PivotFactors
from narrows.errors import InputError, RankError, ShapeError
from narrows.nn._plain import has_bias, is_plain_linear
from narrows.ops import pivot_linear

if TYPE_CHECKING:
    from typing import Self


class PivotLinear(nn.Module):
    """y = [p; up(p)] in the weight's own order of features, + bias, with p = down(x).

    `down` is nn.Linear(D, R) and holds the pivots, R rows of the weight; `up` is nn.Linear(R, E - R)
    and makes the other rows of them; both without a bias. Adapters, quantizers, sharding and
    safetensors work on these children: unless both are plain (`is_plain_linear`), forward calls
    them. R (D + E - R) numbers: fewer than the D E of the weight at every R below min(D, E). The
    state dict holds down.weight (R, D), up.weight (E - R, R), place (E,) and bias (E,). Tensor
    parallelism has to give every device all of p (`output_layouts=Replicate()` on `down`), since p
    is part of y.

    The R features of the pivots are as exact as nn.Linear's. In bf16 and fp16 the others see p after
    it was rounded to that dtype, as they would see the middle of any low-rank pair, but times the
    numbers of `up`: where those are larger than 1 they enlarge p's rounding (at most 2^-8 of p in bf16).

    Attributes:
        in_features, out_features, rank: D, E, R.
        place: (E,) int64; feature e of y is number place[e] of [p; up(p)].
    """

    down: nn.Module
    up: nn.Module
    place: Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ShapeError(f"in_features={in_features} and out_features={out_features} must be at least 1.")
        if not 1 <= rank <= min(in_features, out_features):
            raise RankError(
                f"rank={rank} is outside 1..{min(in_features, out_features)} = min(D={in_features}, E={out_features})."
            )
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.down = nn.Linear(in_features, rank, bias=False, device=device, dtype=dtype)
        self.up = _linear(rank, out_features - rank, device=device, dtype=dtype)
        self.register_buffer("place", torch.arange(out_features, device=device))
        zeros = torch.zeros(out_features, device=device, dtype=dtype) if bias else None
        self.register_parameter("bias", None if zeros is None else nn.Parameter(zeros))

    @classmethod
    def from_pivot(cls, pivot: PivotFactors, bias: Tensor | None = None) -> Self:
        """Return a module that holds copies of the pivot form and the bias.

        Args:
            pivot: rows (R, D), rest (E - R, R), order (E,).
            bias: (E,), cast to the rows' dtype and device.

        Raises:
            ShapeError: the bias is for another E.
            InputError: `order` is not a permutation of 0..E-1.
        """
        D, E, R = pivot.in_features, pivot.out_features, pivot.rank
        if bias is not None and bias.shape != (E,):
            raise ShapeError(f"bias {tuple(bias.shape)} must be (E,) = ({E},).")
        layer = cls(D, E, R, bias=bias is not None, device="meta")
        layer.place = _inverse(pivot.order.to(pivot.rows.device))
        for child, weight in zip(layer._linears(), (pivot.rows, pivot.rest), strict=True):
            child.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().to(pivot.rows).clone())
        return layer

    @property
    def pivot(self) -> PivotFactors:
        """The pivot form; rows and rest share memory and gradients with the children's weights."""
        down, up = self._linears()
        return PivotFactors(down.weight, up.weight, _inverse(self.place))

    def forward(self, x: Tensor) -> Tensor:
        """Return y (..., E) of x (..., D)."""
        down, up = self.down, self.up
        if is_plain_linear(down) and is_plain_linear(up) and not (has_bias(down) or has_bias(up)):
            return pivot_linear(x, down.weight, up.weight, self.place, self.bias)
        p: Tensor = down(x)
        both = torch.cat((p, up(p)), dim=-1)
        y = both.gather(-1, self.place.expand(both.shape))
        return y if self.bias is None else y + self.bias.to(y.dtype)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Return the dense nn.Linear that this form stands for; the product is formed in float32 or wider."""
        mine = self.pivot
        wide = torch.promote_types(mine.rows.dtype, torch.float32)
        dense = PivotFactors(mine.rows.to(wide), mine.rest.to(wide), mine.order).dense()
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        linear.weight = nn.Parameter(dense.to(mine.rows.dtype))
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.clone())
        return linear.train(self.training)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"

    def _linears(self) -> tuple[nn.Linear, nn.Linear]:
        """Return both children, which must be plain: a changed child has no rows to speak of."""
        for name, child in (("down", self.down), ("up", self.up)):
            if type(child) is not nn.Linear:
                raise InputError(f"{name} is {type(child).__name__}, not nn.Linear: merge or remove the adapter first.")
        return self.down, self.up  # type: ignore[return-value]


def _linear(
    in_features: int, out_features: int, *, device: torch.device | str | None, dtype: torch.dtype | None
) -> nn.Linear:
    """Return a linear without bias, also with no output features, which torch cannot initialize."""
    linear = nn.Linear(in_features, max(out_features, 1), bias=False, device=device, dtype=dtype)
    if out_features == 0:
        linear.weight, linear.out_features = nn.Parameter(linear.weight.detach()[:0].clone()), 0
    return linear


def _inverse(order: Tensor) -> Tensor:
    """Return the permutation that undoes `order`."""
    ordered, inverse = order.sort()
    if not torch.equal(ordered, torch.arange(len(order), device=order.device)):
        raise InputError(f"order {tuple(order.shape)} is not a permutation of 0..{len(order) - 1}.")
    return inverse
