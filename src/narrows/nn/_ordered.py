"""What both modules share: whether the weights are still in order of importance, and a plan's ranks.

A prefix of ranks is the best smaller pair only while the rows are ordered. An optimizer step, a
loaded state dict, any in-place change ends that; torch counts such changes in `Tensor._version`.
"""

from __future__ import annotations

import weakref
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from narrows.errors import InputError, RankError, ShapeError

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from narrows._values import Certificate, Factors, Kind, Plan

_Seen = tuple["weakref.ref[Tensor]", int]


class OrderedModule(nn.Module):
    """A module that holds factors of one weight.

    Attributes:
        in_features, out_features, rank: D, E, R.
    """

    kind: Kind
    in_features: int
    out_features: int
    rank: int

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ShapeError(f"in_features={in_features} and out_features={out_features} must be at least 1.")
        if not 1 <= rank <= min(in_features, out_features):
            raise RankError(
                f"rank={rank} is outside 1..{min(in_features, out_features)} = min(D={in_features}, E={out_features})."
            )
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self._plan: Plan | None = None
        self._rank_table: tuple[int, ...] = ()
        self._is_ordered = False
        self._seen: tuple[_Seen, ...] = ()
        self._certificate: Certificate | None = None

    @abstractmethod
    def _weights(self) -> tuple[Tensor, ...]:
        """Return the tensors whose change ends the order."""

    @property
    @abstractmethod
    def factors(self) -> Factors:
        """The factors, as views that share memory and gradients with the parameters."""

    @property
    def _num_heads(self) -> int:
        return 1

    @property
    def is_ordered(self) -> bool:
        """Rows are in order of importance, so that a smaller rank is a prefix.

        True after `from_factors` with ordered factors, until a weight is changed in place (an
        optimizer step, load_state_dict) or replaced; moving, casting and copying keep it. Set it
        to True to declare the present weights ordered, for instance after loading a state dict
        that was saved from ordered factors. A change through `weight.data` is not seen.
        """
        if self._is_ordered and not _is_unchanged(self._seen, self._weights()):
            self._is_ordered, self._certificate = False, None
        return self._is_ordered

    @is_ordered.setter
    def is_ordered(self, ordered: bool) -> None:
        self._declare(is_ordered=ordered, certificate=None)

    @property
    def plan(self) -> Plan | None:
        """The table tokens -> rank; None: always the full rank."""
        return self._plan

    @plan.setter
    def plan(self, plan: Plan | None) -> None:
        self._rank_table = () if plan is None else self._ranks_of(plan)
        self._plan = plan

    def train(self, mode: bool = True) -> Self:
        """Set the mode as nn.Module.train, and look whether the weights are still ordered."""
        _ = self.is_ordered  # compiled code reads the flag, which only this look refreshes
        return super().train(mode)

    def _declare(self, *, is_ordered: bool, certificate: Certificate | None) -> None:
        self._seen = _look_at(self._weights())
        self._is_ordered = is_ordered
        self._certificate = certificate if is_ordered else None

    def _ranks_of(self, plan: Plan) -> tuple[int, ...]:
        """Return first and last length and rank, in turn, where the plan wants a smaller rank."""
        if plan.kind != self.kind:
            raise InputError(f"plan is for kind={plan.kind!r}, this module is {self.kind!r}. Choose a plan for it.")
        mine = (self.in_features, self.out_features, self._num_heads)
        if (plan.in_features, plan.out_features, plan.heads) != mine:
            raise ShapeError(
                f"plan is for D={plan.in_features}, E={plan.out_features}, H={plan.heads}; this module has "
                f"D={mine[0]}, E={mine[1]}, H={mine[2]}."
            )
        if plan.ranks and plan.ranks[-1] > self.rank:
            raise RankError(
                f"plan uses rank {plan.ranks[-1]}, this module holds rank {self.rank}. "
                f"Factorise with rank >= {plan.ranks[-1]}, or set plan = None."
            )
        smaller = tuple(
            (c.tokens_from, c.tokens_to, c.rank) for c in plan.choices if c.rank is not None and c.rank != self.rank
        )
        if smaller and not self.is_ordered:
            raise RankError(
                f"plan uses rank {smaller[0][2]} of {self.rank}, but these weights are not ordered, so a prefix is "
                "not the best smaller pair. Factorise their product again, or set plan = None."
            )
        return tuple(number for row in smaller for number in row)

    def _table(self) -> tuple[int, ...]:
        """Return the plan's table of smaller ranks, for an operation to look up; empty while it does not apply."""
        if not self._rank_table or (self.training and torch.is_grad_enabled()):
            return ()
        is_ordered = self._is_ordered if torch.compiler.is_compiling() else self.is_ordered
        return self._rank_table if is_ordered else ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_is_ordered": self.is_ordered, "_seen": ()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._seen = _look_at(self._weights())  # a copy has its own tensors and counters

    def extra_repr(self) -> str:
        """Return sizes, order and the plan's ranks."""
        ranks = "" if self._plan is None else f", plan_ranks={list(self._plan.ranks)}"
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"
        return f"{sizes}, is_ordered={self.is_ordered}{ranks}"


def _look_at(weights: tuple[Tensor, ...]) -> tuple[_Seen, ...]:
    return tuple((weakref.ref(weight), _version(weight)) for weight in weights)


def _is_unchanged(seen: tuple[_Seen, ...], weights: tuple[Tensor, ...]) -> bool:
    """Return whether these are the same tensors at the same versions."""
    return len(seen) == len(weights) and all(
        before() is now and version == _version(now) for (before, version), now in zip(seen, weights, strict=True)
    )


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version  # noqa: SLF001
