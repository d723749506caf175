"""torch.ops.narrows.linear and .bilinear: schema, computation, shapes, gradients, autocast, FLOPs.

Registered with torch.library.Library: one call costs 6.5 us more than the matmuls themselves
(2-core CPU, torch 2.13), less than torch.library.custom_op. Which implementation runs is
decided in here and not in the traced Python, because it depends on where a and b lie in memory.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import register_flop_formula

from narrows._values import Factors, Problem
from narrows.kernels import BILINEAR_THREE, BILINEAR_TWO, LINEAR_TWO, kernel
from narrows.ops._checks import bilinear_shape, linear_shape
from narrows.ops._gradients import bilinear_gradients, keep_bilinear, keep_linear, linear_gradients

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from narrows._values import Kind

AUTO = "auto"
_Shape = tuple[int, ...]
_library: Any = torch.library.Library("narrows", "DEF")  # type: ignore[no-untyped-call]
_library.define("linear(Tensor x, Tensor a, Tensor b, Tensor? bias, str impl) -> Tensor")
_library.define("bilinear(Tensor x, Tensor a, Tensor b, Tensor? y, float? scale, Tensor? mask, str impl) -> Tensor")


def _linear(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, impl: str) -> Tensor:
    chosen = LINEAR_TWO if impl == AUTO else kernel("linear", impl, _problem("linear", x, a, b, None))
    return chosen.run(x, chosen.pack(Factors(a, b)), bias=bias)


def _linear_shape(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, impl: str) -> Tensor:  # noqa: ARG001
    if impl != AUTO:
        kernel("linear", impl, _problem("linear", x, a, b, None))
    return x.new_empty(linear_shape(x, a, b))


def _bilinear(  # noqa: PLR0917 (of the schema)
    x: Tensor, a: Tensor, b: Tensor, y: Tensor | None, scale: float | None, mask: Tensor | None, impl: str
) -> Tensor:
    scores = _scores(x, Factors(a, b), y, impl)
    if scale is not None:
        scores *= scale
    if mask is not None:
        scores = scores.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else scores.add_(mask)
    return scores


def _scores(x: Tensor, factors: Factors, y: Tensor | None, impl: str) -> Tensor:
    if impl != AUTO:
        chosen = kernel("bilinear", impl, _problem("bilinear", x, factors.a, factors.b, y))
        return chosen.run(x, chosen.pack(factors), y)
    pair = factors.pair if y is None else None
    return BILINEAR_THREE.run(x, factors, y) if pair is None else BILINEAR_TWO.run_pair(x, pair)


def _bilinear_shape(  # noqa: PLR0917 (of the schema)
    x: Tensor,
    a: Tensor,
    b: Tensor,
    y: Tensor | None,
    scale: float | None,  # noqa: ARG001 (of the schema)
    mask: Tensor | None,  # noqa: ARG001
    impl: str,
) -> Tensor:
    if impl != AUTO:
        kernel("bilinear", impl, _problem("bilinear", x, a, b, y))
    return x.new_empty(bilinear_shape(x, a, y))


def _problem(kind: Kind, x: Tensor, a: Tensor, b: Tensor, y: Tensor | None) -> Problem:
    return Problem(
        kind=kind,
        tokens=prod(x.shape[:-1]),
        in_features=a.shape[-1],
        out_features=b.shape[-1],
        other_tokens=None if y is None else prod(y.shape[:-1]),
        heads=a.shape[0] if a.ndim == 3 else 1,
        dtype=str(x.dtype),
        device=str(x.device),
    )


def _autocast(operation: Any, device: str) -> Callable[..., Tensor]:
    """Return the kernel that casts floating operands to autocast's dtype, as for F.linear."""
    key = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"Autocast{device.upper()}"))  # noqa: SLF001

    def cast_and_call(*args: Any) -> Tensor:
        dtype = torch.get_autocast_dtype(device)
        # The guard, and not torch.autocast(enabled=False): export would record that as a region.
        with torch._C._ExcludeDispatchKeyGuard(key):  # noqa: SLF001
            return operation(*(_cast(arg, dtype) for arg in args))  # type: ignore[no-any-return]

    return cast_and_call


def _cast(arg: Any, dtype: torch.dtype) -> Any:
    if isinstance(arg, torch.Tensor) and arg.is_floating_point() and arg.dtype != torch.float64:
        return arg.to(dtype)
    return arg


def _register(
    name: str, real: Callable[..., Tensor], shape: Callable[..., Tensor], backward: Any, keep: Any
) -> torch._ops.OpOverload[..., Any]:
    _library.impl(name, real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"narrows::{name}", shape, lib=_library)
    torch.library.register_autograd(f"narrows::{name}", backward, setup_context=keep, lib=_library)
    operation = getattr(torch.ops.narrows, name).default
    for device in ("cpu", "cuda"):
        _library.impl(name, _autocast(operation, device), f"Autocast{device.upper()}")
    return operation  # type: ignore[no-any-return]


linear_op = _register("linear", _linear, _linear_shape, linear_gradients, keep_linear)
bilinear_op = _register("bilinear", _bilinear, _bilinear_shape, bilinear_gradients, keep_bilinear)


@register_flop_formula(torch.ops.narrows.linear)
def _linear_flops(x: _Shape, a: _Shape, *_: Any, out_shape: _Shape, **__: Any) -> int:
    """2 per multiply-add: x a^T, then times b."""
    return 2 * (_projection_size(x, a) * x[-1] + prod(out_shape) * a[-2])


@register_flop_formula(torch.ops.narrows.bilinear)
def _bilinear_flops(x: _Shape, a: _Shape, b: _Shape, y: _Shape | None, *_: Any, out_shape: _Shape, **__: Any) -> int:
    """2 per multiply-add: both projections, then their product."""
    other = x if y is None else y
    projections = _projection_size(x, a) * x[-1] + _projection_size(other, b) * other[-1]
    return 2 * (projections + prod(out_shape) * a[-2])


def _projection_size(x: _Shape, weight: _Shape) -> int:
    """Elements of x weight^T; both are shapes."""
    heads = weight[0] if len(weight) == 3 and (len(x) == 2 or x[-3] == 1) else 1
    return prod(x[:-1]) * heads * weight[-2]
