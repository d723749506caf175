"""torch.ops.narrows.bilinear: computation, shape, gradients and FLOPs."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import register_flop_formula

from narrows._values import Factors
from narrows.kernels import BILINEAR_THREE, BILINEAR_TWO, Epilogue, kernel
from narrows.ops._bilinear_choice import named_kernel, own_kernel, prepare_capture
from narrows.ops._bilinear_gradients import bilinear_gradients, keep_bilinear
from narrows.ops._checks import bilinear_shape
from narrows.ops._library import AUTO, Shape, projection_size, register
from narrows.ops._problem import problem_of

if TYPE_CHECKING:
    from torch import Tensor


def run_bilinear(  # noqa: PLR0917 (of the schema)
    x: Tensor,
    a: Tensor,
    b: Tensor,
    y: Tensor | None,
    scale: float | None,
    softcap: float | None,
    mask: Tensor | None,
    causal: bool,
    impl: str,
) -> Tensor:
    """Compute the operation: what torch.ops.narrows.bilinear runs once autograd and autocast are done."""
    epilogue = Epilogue(scale, softcap, mask, causal)
    factors = Factors(a, b)
    own = own_kernel(impl, x, factors, y, epilogue)
    prepare_capture(impl, x, factors, y, epilogue)
    if own is not None:
        chosen, config = own
        return chosen.run_with(config, x, factors, y, epilogue=epilogue)
    return epilogue.apply_(_scores(x, factors, y, impl))


def _scores(x: Tensor, factors: Factors, y: Tensor | None, impl: str) -> Tensor:
    if impl != AUTO:
        chosen = named_kernel(impl, x, factors.a, factors.b, y)
        return chosen.run(x, chosen.pack(factors), y)
    pair = factors.pair if y is None else None
    return BILINEAR_THREE.run(x, factors, y) if pair is None else BILINEAR_TWO.run_pair(x, pair)


def _bilinear_shape(  # noqa: PLR0917 (of the schema)
    x: Tensor,
    a: Tensor,
    b: Tensor,
    y: Tensor | None,
    scale: float | None,  # noqa: ARG001 (of the schema)
    softcap: float | None,  # noqa: ARG001
    mask: Tensor | None,  # noqa: ARG001
    causal: bool,  # noqa: ARG001
    impl: str,
) -> Tensor:
    if impl != AUTO:
        kernel("bilinear", impl, problem_of("bilinear", x, a, b, y))
    return x.new_empty(bilinear_shape(x, a, y))


bilinear_op = register(
    "bilinear(Tensor x, Tensor a, Tensor b, Tensor? y, float? scale, float? softcap, Tensor? mask, bool causal, "
    "str impl) -> Tensor",
    run_bilinear,
    _bilinear_shape,
    bilinear_gradients,
    keep_bilinear,
)


@register_flop_formula(torch.ops.narrows.bilinear)
def bilinear_flops(x: Shape, a: Shape, b: Shape, y: Shape | None, *_: Any, out_shape: Shape, **__: Any) -> int:
    """2 per multiply-add: both projections, then their product."""
    other = x if y is None else y
    projections = projection_size(x, a) * x[-1] + projection_size(other, b) * other[-1]
    return 2 * (projections + prod(out_shape) * a[-2])
