"""Models that cannot be factorised as they are: refused before any work, with the layer named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from narrows.errors import InputError, NonFiniteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PLAIN_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_model(model: nn.Module) -> None:
    """Raise InputError for a model that something else has changed: compressed, quantised, with adapters."""
    found = getattr(getattr(model, "config", None), "quantization_config", None)
    if found is not None:
        method = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
        raise InputError(
            f"the model is already quantised or compressed ({method or type(found).__name__} in its configuration): "
            "start from the dense model, and quantise what comes out."
        )
    for name, module in model.named_modules():
        if type(module).__module__.startswith("narrows.nn"):
            raise InputError(f"{name} is a {type(module).__name__} already: start from the dense model.")
        if isinstance(getattr(module, "base_layer", None), nn.Module):
            raise InputError(f"{name} carries an adapter: merge it first (PEFT: model = model.merge_and_unload()).")


def check_weights(model: nn.Module, chosen: Mapping[str, nn.Module]) -> None:
    """Raise unless every chosen layer's weight is a plain, finite matrix of its own.

    Raises:
        InputError: quantised, a tensor subclass, on the meta device, or tied to another module.
        NonFiniteError: NaN or Inf.
    """
    for name, module in chosen.items():
        _check_plain(name, module.weight)  # type: ignore[arg-type]
    _check_untied(model, chosen)
    for name, module in chosen.items():
        _check_finite(name, module.weight)  # type: ignore[arg-type]


def _check_plain(name: str, weight: torch.Tensor) -> None:
    kind = next((type(one) for one in (weight, weight.data) if type(one) not in {nn.Parameter, torch.Tensor}), None)
    if kind is not None or weight.dtype not in PLAIN_DTYPES:
        what = kind.__name__ if kind is not None else str(weight.dtype)
        raise InputError(
            f"the weight of {name} is {what}: only plain weights in float64, float32, bfloat16 or float16 can be "
            "factorised. Load the model without quantisation or sharding."
        )
    if weight.is_meta:
        raise InputError(f"the weight of {name} is on the meta device, so it has no values: load the weights first.")


def _check_finite(name: str, weight: torch.Tensor) -> None:
    finite = torch.isfinite(weight.detach())
    if not finite.all():
        bad, first = int((~finite).sum()), tuple((~finite).nonzero()[0].tolist())
        raise NonFiniteError(
            f"the weight of {name} {tuple(weight.shape)} holds {bad} NaN or Inf, the first at {first}: "
            "get the model again, or leave this layer out with filter_fn."
        )


def _check_untied(model: nn.Module, chosen: Mapping[str, nn.Module]) -> None:
    """Raise where replacing a chosen layer would leave another user of its weight behind."""
    users: dict[int, list[str]] = {}
    for place, weight in _places(model):
        users.setdefault(weight.data_ptr(), []).append(place)
    for name, module in chosen.items():
        tied = users.get(module.weight.data_ptr(), [])  # type: ignore[operator]
        if len(tied) > 1:
            raise InputError(
                f"{' and '.join(tied[:4])} share one weight: replacing {name} would untie them. Leave it out with "
                "filter_fn, or give each a copy of its own."
            )


def _places(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (place, weight) for every place that holds a parameter; a module in two places counts twice.

    A place is an attribute of a parent. A parent with several names (one block that a stack repeats)
    is one parent: a change of it is seen under all of them.
    """
    seen: set[tuple[int, str]] = set()
    for parent_name, parent in model.named_modules(remove_duplicate=False):
        for child_name, child in parent._modules.items():  # noqa: SLF001 (named_children hides a second place)
            if child is None or (id(parent), child_name) in seen:
                continue
            seen.add((id(parent), child_name))
            place = f"{parent_name}.{child_name}" if parent_name else child_name
            yield from ((place, one) for one in child.parameters(recurse=False) if one.ndim > 1)
    yield from ((f"{type(model).__name__} itself", one) for one in model.parameters(recurse=False) if one.ndim > 1)
