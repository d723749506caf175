"""LowRankLinear: nn.Linear with its weight as two thin ones.

Letters: D input, E output features, R rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from narrows._values import Factors
from narrows.errors import InputError, RankError, ShapeError
from narrows.nn._ordered import OrderedModule
from narrows.nn._plain import has_bias, is_plain_linear
from narrows.ops import linear_planned

if TYPE_CHECKING:
    from typing import Self

    from narrows._values import Kind, Plan


class LowRankLinear(OrderedModule):
    """y = up(down(x)): `down` is nn.Linear(D, R, bias=False), `up` is nn.Linear(R, E).

    Two ordinary children, so that adapters, quantizers, sharding and safetensors work on them:
    the state dict holds down.weight (R, D), up.weight (E, R) and up.bias. While both are plain
    (`is_plain_linear`), forward is the one operation `narrows.linear`; otherwise it calls them, at
    full rank.

    With a plan, forward takes the rank that the plan names for this number of tokens (all
    leading dimensions of x together), as a prefix view. It takes the full rank where the plan says
    dense (there is no dense weight here), outside the measured lengths, while training (training
    mode with gradients on) and once the weights are no longer ordered. The plan is not
    part of the state dict; keep it with `Plan.to_json`. Under torch.compile the rank is looked up
    inside the operation, so that a plan adds no graph: one for the first length, one for all others
    (torch itself makes one more for a length of 1 that does not come first).
    """

    kind: Kind = "linear"
    down: nn.Module
    up: nn.Module

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
        super().__init__(in_features, out_features, rank)
        self.down = nn.Linear(in_features, rank, bias=False, device=device, dtype=dtype)
        self.up = nn.Linear(rank, out_features, bias=bias, device=device, dtype=dtype)

    @classmethod
    def from_factors(cls, factors: Factors, bias: Tensor | None = None, plan: Plan | None = None) -> Self:
        """Return a module that holds copies of the factors and the bias.

        Args:
            factors: a (R, D), b (R, E), without heads.
            bias: (E,), cast to the factors' dtype and device.
            plan: ranks by number of tokens; None: always R.

        Raises:
            ShapeError: the factors have heads, or bias or plan are for other sizes.
            InputError: the plan is not for "linear".
            RankError: the plan uses a rank above R, or a smaller one and the factors are not ordered.
        """
        if factors.a.ndim != 2:
            raise ShapeError(f"factors a {tuple(factors.a.shape)} have heads; LowRankLinear needs (R, D) and (R, E).")
        if bias is not None and bias.shape != (factors.out_features,):
            raise ShapeError(f"bias {tuple(bias.shape)} must be (E,) = ({factors.out_features},).")
        layer = cls(factors.in_features, factors.out_features, factors.rank, bias=bias is not None, device="meta")
        layer._take(factors)
        if bias is not None:
            layer._linears()[1].bias = nn.Parameter(bias.detach().to(factors.b).clone())
        layer.plan = plan
        return layer

    @classmethod
    def from_linear(cls, linear: nn.Linear, factors: Factors, plan: Plan | None = None) -> Self:
        """Return a module in place of `linear`: its bias, dtype, device and mode, the factors' weight.

        Raises:
            ShapeError: the factors are for another weight's sizes.
            InputError, RankError: as in `from_factors`.
        """
        if (linear.in_features, linear.out_features) != (factors.in_features, factors.out_features):
            raise ShapeError(
                f"linear has D={linear.in_features}, E={linear.out_features}; the factors have "
                f"D={factors.in_features}, E={factors.out_features}."
            )
        layer = cls.from_factors(factors.to(linear.weight.device, linear.weight.dtype), linear.bias, plan)
        return layer.train(linear.training)

    @property
    def factors(self) -> Factors:
        """The factors, as views that share memory and gradients with the children's weights."""
        down, up = self._linears()
        ordered = self.is_ordered
        return Factors(down.weight, up.weight.mT, self._certificate, is_ordered=ordered)

    def forward(self, x: Tensor) -> Tensor:
        """Return y (..., E) of x (..., D)."""
        down, up = self.down, self.up
        if not (is_plain_linear(down) and is_plain_linear(up)) or has_bias(down):
            return up(down(x))  # type: ignore[no-any-return]
        return linear_planned(x, down.weight, up.weight.mT, up.bias, self._table())

    @torch.no_grad()
    def truncate_(self, rank: int) -> Self:
        """Keep only the first `rank` ranks, in place; the rest of the memory is freed.

        The weights become new parameters: an optimizer made before does not know them.

        Raises:
            RankError: outside 1..R, the weights are not ordered, or the plan uses larger ranks.
        """
        shorter = self.factors.truncate(rank)
        if self._plan is not None and self._plan.ranks and self._plan.ranks[-1] > rank:
            raise RankError(f"rank={rank}: the plan uses rank {self._plan.ranks[-1]}. Set plan = None first.")
        if rank != self.rank:
            self._take(shorter)
            self.plan = self._plan
        return self

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Return the dense nn.Linear that these factors stand for; the product is formed in float32 or wider."""
        down, up = self._linears()
        wide = torch.promote_types(down.weight.dtype, torch.float32)
        linear = nn.Linear(self.in_features, self.out_features, bias=up.bias is not None, device="meta")
        linear.weight = nn.Parameter((up.weight.to(wide) @ down.weight.to(wide)).to(down.weight.dtype))
        if up.bias is not None:
            linear.bias = nn.Parameter(up.bias.clone())
        return linear.train(self.training)

    def _take(self, factors: Factors) -> None:
        """Replace the children's weights by copies of ordered or unordered factors."""
        down, up = self._linears()
        for child, weight in ((down, factors.a), (up, factors.b.mT)):
            copied = weight.detach().clone(memory_format=torch.contiguous_format)
            child.weight = nn.Parameter(copied, requires_grad=child.weight.requires_grad)
        self.rank = down.out_features = up.in_features = factors.rank
        self._declare(is_ordered=factors.is_ordered, certificate=factors.certificate)

    def _weights(self) -> tuple[Tensor, ...]:
        children = (self.down, self.up)
        return tuple(child.weight for child in children if isinstance(child, nn.Linear))

    def _linears(self) -> tuple[nn.Linear, nn.Linear]:
        """Return both children, which must be plain: a changed child has no factors to speak of."""
        for name, child in (("down", self.down), ("up", self.up)):
            if type(child) is not nn.Linear:
                raise InputError(f"{name} is {type(child).__name__}, not nn.Linear: merge or remove the adapter first.")
        return self.down, self.up  # type: ignore[return-value]
