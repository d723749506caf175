"""Whether a fused forward may read a child's weight, or must call the child."""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules import module as torch_module

# What torch.compile and torch.export put in a parameter's place while they trace.
_PLAIN = (Tensor, nn.Parameter)
_TRACED = (FakeTensor, FunctionalTensor)


def is_plain_linear(child: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether calling `child` is nothing but x W^T + bias with an ordinary W.

    False for an adapter (LoRA), a subclass, a parametrization, a quantized or sharded weight,
    hooks of any sort and a replaced forward: a fused path would silently ignore them.
    """
    return type(child) is nn.Linear and not _is_hooked(child) and is_plain_tensor(child.weight)


def has_bias(child: nn.Linear) -> bool:
    """Return whether a linear adds a bias."""
    bias: Tensor | None = child.bias  # torch annotates it as never None
    return bias is not None


def is_plain_tensor(tensor: Tensor) -> bool:
    """Return whether a tensor is of no subclass."""
    return type(tensor) in _PLAIN or isinstance(tensor, _TRACED)


def _is_hooked(child: nn.Module) -> bool:
    return bool(
        child._forward_hooks  # noqa: SLF001 (torch has no public question for this)
        or child._forward_pre_hooks  # noqa: SLF001
        or child._backward_hooks  # noqa: SLF001
        or child._backward_pre_hooks  # noqa: SLF001
        or "forward" in child.__dict__
        or torch_module._has_any_global_hook()  # type: ignore[no-untyped-call]  # noqa: SLF001
    )
