"""torch.ops.narrows.linear: computation, shape, gradients and FLOPs."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import register_flop_formula

from narrows._values import Factors
from narrows.ops._checks import linear_shape
from narrows.ops._library import Shape, projection_size, register
from narrows.ops._linear_choice import check_kernel_name, linear_kernel
from narrows.ops._linear_gradients import keep_linear, linear_gradients

if TYPE_CHECKING:
    from torch import Tensor


def run_linear(  # noqa: PLR0917 (of the schema)
    x: Tensor,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    middle_bias: Tensor | None,
    residual: Tensor | None,
    activation: str | None,
    impl: str,
) -> Tensor:
    """Compute the operation: what torch.ops.narrows.linear runs once autograd and autocast are done."""
    chosen = linear_kernel(impl, x, (a,), (b,))
    return chosen.run(
        x,
        chosen.pack(Factors(a, b)),
        bias=bias,
        middle_bias=middle_bias,
        residual=residual,
        activation=activation,
    )


def _linear_shape(  # noqa: PLR0917 (of the schema)
    x: Tensor,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,  # noqa: ARG001 (of the schema)
    middle_bias: Tensor | None,  # noqa: ARG001
    residual: Tensor | None,  # noqa: ARG001
    activation: str | None,  # noqa: ARG001
    impl: str,
) -> Tensor:
    check_kernel_name(impl, x, (a,), (b,))
    return x.new_empty(linear_shape(x, a, b))


linear_op = register(
    "linear(Tensor x, Tensor a, Tensor b, Tensor? bias, Tensor? middle_bias, Tensor? residual, str? activation, "
    "str impl) -> Tensor",
    run_linear,
    _linear_shape,
    linear_gradients,
    keep_linear,
)


@register_flop_formula(torch.ops.narrows.linear)
def linear_flops(x: Shape, a: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    """2 per multiply-add: x a^T, then times b."""
    return 2 * (projection_size(x, a) * x[-1] + prod(out_shape) * a[-2])
