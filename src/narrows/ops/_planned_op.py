"""torch.ops.narrows.linear_planned and bilinear_planned: the rank for this length is looked up inside.

In traced Python that lookup would be a guard on the length, and torch.compile would make a graph
for every row of a plan; inside an operation it is not traced, and the result's shape does not
depend on the rank. For the same reason the backward pass does not slice: it is that of the full
rank with the ranks beyond the prefix masked out, by a mask that is computed and not branched on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import register_flop_formula

from narrows.ops._bilinear_gradients import bilinear_gradients, keep_bilinear
from narrows.ops._bilinear_op import bilinear_flops, bilinear_op
from narrows.ops._library import Shape, register
from narrows.ops._linear_gradients import keep_linear, linear_gradients
from narrows.ops._linear_op import linear_flops, linear_op

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

A = 1  # position of a (..., R, D) among the operands of both operations


@dataclass(frozen=True)
class _Planned:
    """An operation whose operands are cut to the rank of a table.

    Attributes:
        base: the operation that runs; x is its first operand.
        base_flops, backward, keep: of `base`.
        ranked: position -> dimension of the operands that hold ranks.
        length: the number of tokens that the table speaks of, from x's shape.
    """

    base: Any
    base_flops: Callable[..., int]
    backward: Callable[..., Any]
    keep: Callable[..., Any]
    ranked: dict[int, int]
    length: Callable[[Sequence[int]], int]

    def run(self, *operands: Any) -> Tensor:
        """Return what `base` returns for the ranks that the table (the last operand) gives for this length."""
        *given, table = operands
        rank = rank_at(table, self.length(given[0].shape), given[A].shape[-2])
        for position, dimension in self.ranked.items():
            if given[position] is not None:
                given[position] = given[position].narrow(dimension, 0, rank)
        return self.base(*given)  # type: ignore[no-any-return]

    def shape(self, *operands: Any) -> Tensor:
        """Return an empty tensor of the result's shape, at any rank the same."""
        return self.base(*operands[:-1])  # type: ignore[no-any-return]

    def keep_operands(self, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG002 (torch's)
        """Keep every operand."""
        ctx.save_for_backward(*(value for value in inputs if isinstance(value, torch.Tensor)))
        ctx.others = [None if isinstance(value, torch.Tensor) else (value,) for value in inputs]

    def gradients(self, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """Return the gradients of every operand; 0 for the ranks that took no part."""
        saved = iter(ctx.saved_tensors)
        *given, table = [next(saved) if other is None else other[0] for other in ctx.others]
        beyond = is_beyond(table, self.length(given[0].shape), given[A].shape[-2], given[A].device)
        cut = [self._cut(i, value, beyond) for i, value in enumerate(given)]
        inner = _Context(ctx.needs_input_grad[:-1])
        self.keep(inner, tuple(cut), None)
        grads = self.backward(inner, grad)
        return (*(self._cut(i, value, beyond) for i, value in enumerate(grads)), None)

    def flops(self, *shapes: Any, out_shape: Shape, **_: Any) -> int:
        """Return the FLOPs of the rank that the table gives; operands as shapes."""
        *given, table = shapes
        rank = rank_at(table, self.length(given[0]), given[A][-2])
        for position in (A, A + 1):
            given[position] = (*given[position][:-2], rank, given[position][-1])
        return self.base_flops(*given, out_val=out_shape)  # as torch calls a registered formula

    def _cut(self, position: int, value: Any, beyond_R: Tensor) -> Any:
        """Return an operand, or its gradient, with 0 in place of the ranks beyond the prefix."""
        if value is None or position not in self.ranked:
            return value
        mask = beyond_R if self.ranked[position] == -1 else beyond_R.unsqueeze(-1)
        return value.masked_fill(mask, 0)


@dataclass
class _Context:
    """What a backward pass reads and writes of torch's context."""

    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Any, ...] = field(default=())

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors


def rank_at(table: Sequence[int], tokens: int, full: int) -> int:
    """Return the rank for this many tokens; `full` where no row of the table holds them.

    Args:
        table: first and last number of tokens and rank, in turn.
    """
    for first, last, rank in _rows(table):
        if first <= tokens <= last:
            return rank
    return full


def is_beyond(table: Sequence[int], tokens: int, full: int, device: torch.device) -> Tensor:
    """Return (R,) bool: True for the ranks that take no part, computed without a branch on the length."""
    length = torch.full((), tokens, dtype=torch.int64, device=device)
    rank = torch.full((), full, dtype=torch.int64, device=device)
    for first, last, smaller in _rows(table):
        rank = torch.where((length >= first) & (length <= last), smaller, rank)
    return torch.arange(full, device=device) >= rank


def _rows(table: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    return zip(table[0::3], table[1::3], table[2::3], strict=True)


def _register(planned: _Planned) -> Any:
    name, _, rest = str(planned.base._schema).removeprefix("narrows::").partition("(")  # noqa: SLF001
    operation = register(
        f"{name}_planned({rest.rpartition(') ->')[0]}, int[] table) -> Tensor",
        planned.run,
        planned.shape,
        planned.gradients,
        planned.keep_operands,
    )
    register_flop_formula(operation.overloadpacket)(planned.flops)
    return operation


linear_planned_op = _register(
    _Planned(
        linear_op,
        linear_flops,
        linear_gradients,
        keep_linear,
        ranked={A: -2, A + 1: -2, 4: -1},
        length=lambda shape: prod(shape[:-1]),
    )
)
bilinear_planned_op = _register(
    _Planned(
        bilinear_op,
        bilinear_flops,
        bilinear_gradients,
        keep_bilinear,
        ranked={A: -2, A + 1: -2},
        length=lambda shape: shape[-2],
    )
)
