"""torch.ops.narrows.linear_group and gated_linear: several factors that read the same x once."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import register_flop_formula

from narrows._values import Factors
from narrows.ops._checks import linear_shape
from narrows.ops._library import Shape, register
from narrows.ops._linear_choice import check_kernel_name, linear_kernel
from narrows.ops._linear_gradients import gated_gradients, group_gradients, keep_gated, keep_group

if TYPE_CHECKING:
    from torch import Tensor


def _group(  # noqa: PLR0917 (of the schema)
    x: Tensor, a: list[Tensor], b: list[Tensor], biases: list[Tensor], has_bias: list[bool], impl: str
) -> list[Tensor]:
    given = iter(biases)
    every = [next(given) if has else None for has in has_bias]
    chosen = linear_kernel(impl, x, a, b)
    return chosen.run_group(x, [chosen.pack(Factors(*pair)) for pair in zip(a, b, strict=True)], every)


def _group_shapes(  # noqa: PLR0917 (of the schema)
    x: Tensor,
    a: list[Tensor],
    b: list[Tensor],
    biases: list[Tensor],  # noqa: ARG001 (of the schema)
    has_bias: list[bool],  # noqa: ARG001
    impl: str,
) -> list[Tensor]:
    check_kernel_name(impl, x, a, b)
    return [x.new_empty(linear_shape(x, *pair)) for pair in zip(a, b, strict=True)]


def _gated(  # noqa: PLR0917 (of the schema)
    x: Tensor,
    gate_a: Tensor,
    gate_b: Tensor,
    up_a: Tensor,
    up_b: Tensor,
    gate_bias: Tensor | None,
    up_bias: Tensor | None,
    activation: str | None,
    impl: str,
) -> Tensor:
    chosen = linear_kernel(impl, x, (gate_a, up_a), (gate_b, up_b))
    return chosen.run_gated(
        x,
        chosen.pack(Factors(gate_a, gate_b)),
        chosen.pack(Factors(up_a, up_b)),
        gate_bias=gate_bias,
        up_bias=up_bias,
        activation=activation,
    )


def _gated_shape(  # noqa: PLR0917 (of the schema)
    x: Tensor,
    gate_a: Tensor,
    gate_b: Tensor,
    up_a: Tensor,
    up_b: Tensor,
    gate_bias: Tensor | None,  # noqa: ARG001 (of the schema)
    up_bias: Tensor | None,  # noqa: ARG001
    activation: str | None,  # noqa: ARG001
    impl: str,
) -> Tensor:
    check_kernel_name(impl, x, (gate_a, up_a), (gate_b, up_b))
    return x.new_empty(linear_shape(x, gate_a, gate_b))


# has_bias and not Tensor?[]: torch does not differentiate a list in which a tensor is missing.
group_op = register(
    "linear_group(Tensor x, Tensor[] a, Tensor[] b, Tensor[] biases, bool[] has_bias, str impl) -> Tensor[]",
    _group,
    _group_shapes,
    group_gradients,
    keep_group,
)
gated_op = register(
    "gated_linear(Tensor x, Tensor gate_a, Tensor gate_b, Tensor up_a, Tensor up_b, Tensor? gate_bias, "
    "Tensor? up_bias, str? activation, str impl) -> Tensor",
    _gated,
    _gated_shape,
    gated_gradients,
    keep_gated,
)


@register_flop_formula(torch.ops.narrows.linear_group)
def _group_flops(x: Shape, a: list[Shape], b: list[Shape], *_: Any, **__: Any) -> int:
    """2 per multiply-add: every member's projection and expansion."""
    return sum(_member_flops(x, *pair) for pair in zip(a, b, strict=True))


@register_flop_formula(torch.ops.narrows.gated_linear)
def _gated_flops(x: Shape, gate_a: Shape, gate_b: Shape, up_a: Shape, up_b: Shape, *_: Any, **__: Any) -> int:
    """2 per multiply-add: both projections and expansions."""
    return _member_flops(x, gate_a, gate_b) + _member_flops(x, up_a, up_b)


def _member_flops(x: Shape, a: Shape, b: Shape) -> int:
    return 2 * prod(x[:-1]) * a[0] * (a[1] + b[1])
