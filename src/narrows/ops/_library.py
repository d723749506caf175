"""The library torch.ops.narrows and what every operation in it needs: shapes, gradients, autocast.

Registered with torch.library.Library: one call costs 6.5 us more than the matmuls themselves
(2-core CPU, torch 2.13), less than torch.library.custom_op. Which implementation runs is
decided inside the operations and not in the traced Python, because it depends on where operands
lie in memory and on what was measured on the device.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

AUTO = "auto"
Shape = tuple[int, ...]
_library: Any = torch.library.Library("narrows", "DEF")  # type: ignore[no-untyped-call]


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
    return [_cast(item, dtype) for item in arg] if isinstance(arg, list) else arg


def register(
    schema: str, real: Callable[..., Any], shape: Callable[..., Any], backward: Any, keep: Any
) -> torch._ops.OpOverload[..., Any]:
    """Return torch.ops.narrows.NAME.default, defined by a schema "NAME(...) -> Tensor".

    Args:
        schema: as torch.library.Library.define reads it.
        real: the computation, on any device.
        shape: the same signature; returns empty tensors of the result's shape.
        backward, keep: as `backward` and `setup_context` of torch.library.register_autograd.
    """
    _library.define(schema)
    name = schema.partition("(")[0]
    _library.impl(name, real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"narrows::{name}", shape, lib=_library)
    torch.library.register_autograd(f"narrows::{name}", backward, setup_context=keep, lib=_library)
    operation = getattr(torch.ops.narrows, name).default
    for device in ("cpu", "cuda"):
        _library.impl(name, _autocast(operation, device), f"Autocast{device.upper()}")
    return operation  # type: ignore[no-any-return]


def projection_size(x: Shape, weight: Shape) -> int:
    """Return the elements of x weight^T; both are shapes."""
    heads = weight[0] if len(weight) == 3 and (len(x) == 2 or x[-3] == 1) else 1
    return prod(x[:-1]) * heads * weight[-2]
