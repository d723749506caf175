"""The models that stand beside each other in a check, and what each of them stores."""

from __future__ import annotations

import copy
import importlib.util
from typing import TYPE_CHECKING

from torch import nn

from narrows._values._check import CheckedSide
from narrows.nn import LowRankLinear

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from narrows._values._check import SideName


def shared_copy(model: nn.Module) -> nn.Module:
    """Return a copy with modules of its own and the same tensors: only what is replaced later takes memory."""
    kept = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(model, memo=kept)  # what stands in the memo is not copied


def int8_copy(dense: nn.Module, names: Sequence[str]) -> nn.Module | str:
    """Return dense with 8-bit weights in its block linears (torchao, weight only), or why there is none.

    Args:
        dense: stays as it is; all other tensors are shared.
        names: of the block linears; those that are not nn.Linear stay dense.
    """
    if importlib.util.find_spec("torchao") is None:
        return "torchao is not installed"
    found = shared_copy(dense)
    chosen = {name for name in names if type(found.get_submodule(name)) is nn.Linear}
    if not chosen:
        kinds = sorted({type(found.get_submodule(name)).__name__ for name in names})
        return f"torchao quantises nn.Linear, and the block linears are {', '.join(kinds) or 'none'}"
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(found, Int8WeightOnlyConfig(), filter_fn=lambda _, name: name in chosen)
    except Exception as fault:  # noqa: BLE001 (whatever a foreign package raises is the reason that is shown)
        return f"torchao could not quantise it: {reason_of(fault)}"
    return found


def naive_copy(compressed: nn.Module) -> nn.Module | str:
    """Return the compressed model with its factors run as plain torch layers, or why there is none.

    Args:
        compressed: stays as it is; every tensor is shared.
    """
    found = shared_copy(compressed)
    thin = [(name, module) for name, module in found.named_modules() if isinstance(module, LowRankLinear)]
    for name, module in thin:
        found.set_submodule(name, nn.Sequential(module.down, module.up))
    return found if thin else "no linear layer is low-rank (other forms have no plainer way to run)"


def sides_of(
    models: Mapping[SideName, nn.Module | str], names: Sequence[str], disk_bytes: Mapping[SideName, int | None]
) -> dict[SideName, CheckedSide]:
    """Return what each model stores, or why it is missing; quality is not filled in.

    What stands in place of the block linears is what the dense model stores for them, plus all that the model
    stores more than the dense one (or less), so that it is counted wherever a replacement keeps it.

    Args:
        models: "dense" among them; a text is the reason that a model is missing.
        names: of dense's block linears.
        disk_bytes: of the files of weights, where there are any.
    """
    dense = models["dense"]
    assert isinstance(dense, nn.Module)
    linears = _count(_weights([dense.get_submodule(name) for name in names]))
    all_dense = _count(_weights([dense]))
    found = {}
    for name, model in models.items():
        if isinstance(model, str):
            found[name] = CheckedSide(name, missing=model)
            continue
        numbers, num_bytes = _count(_weights([model]))
        found[name] = CheckedSide(
            name,
            numbers=linears[0] + numbers - all_dense[0],
            kept_bytes=linears[1] + num_bytes - all_dense[1],
            weight_bytes=weight_bytes(model),
            disk_bytes=disk_bytes.get(name),
        )
    return found


def _count(tensors: Sequence[Tensor]) -> tuple[int, int]:
    """Return how many numbers tensors hold, and their bytes."""
    return sum(tensor.numel() for tensor in tensors), sum(tensor_bytes(tensor) for tensor in tensors)


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of all weights and buffers, shared ones once."""
    return sum(tensor_bytes(tensor) for tensor in _unique([*model.parameters(), *model.buffers()]))


def tensor_bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor; of the parts of one that holds others (quantised)."""
    if hasattr(tensor, "__tensor_flatten__"):
        parts = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        return sum(tensor_bytes(part) for part in parts)
    return tensor.numel() * tensor.element_size()


def reason_of(fault: Exception) -> str:
    """Return a foreign exception as one line."""
    first = (str(fault).strip().splitlines() or [""])[0]
    return f"{type(fault).__name__}: {first}"[:200]


def _weights(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return the floating tensors of modules but for their biases, each once."""
    named = [pair for module in modules for pair in [*module.named_parameters(), *module.named_buffers()]]
    kept = [tensor for name, tensor in named if name.rpartition(".")[2] != "bias" and tensor.is_floating_point()]
    return _unique(kept)


def _unique(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())
