"""May a fused forward read this child's weight, or must the child be called?"""

from __future__ import annotations

from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules import module as torch_module

# What torch.compile and torch.export put in a parameter's place while they trace.
_PLAIN = (Tensor, nn.Parameter)
_TRACED = (FakeTensor, FunctionalTensor)


def is_plain_linear(child: nn.Module) -> bool:
    """Return whether calling `child` is nothing but x W^T + bias with an ordinary W.

    False for an adapter (LoRA), a subclass, a parametrization, a quantized or sharded weight,
    hooks of any sort and a replaced forward: a fused path would silently ignore them.
    """
    return type(child) is nn.Linear and not _is_hooked(child) and is_plain_tensor(child.weight)


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
        or torch_module._has_any_global_hook()  # noqa: SLF001
    )
