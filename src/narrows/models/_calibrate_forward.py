"""Running a model only to look at it: nothing of it is changed for longer than that.

Letters: B windows, T tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextmanager
def quiet_model(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode, without gradients of parameters and without a cache; then as it was."""
    modes = {module: module.training for module in model.modules()}
    learning = [one for one in model.parameters() if one.requires_grad]
    config = getattr(model, "config", None)
    use_cache = getattr(config, "use_cache", None)
    try:
        model.eval()
        for one in learning:
            one.requires_grad_(False)
        if use_cache:
            config.use_cache = False  # type: ignore[union-attr]
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for one in learning:
            one.requires_grad_(True)
        if use_cache:
            config.use_cache = use_cache  # type: ignore[union-attr]


def forward(model: nn.Module, window: torch.Tensor | Mapping[str, torch.Tensor]) -> Any:
    """Return what the model makes of token ids (B, T), or of its own keyword arguments."""
    device = next(model.parameters()).device
    if isinstance(window, Mapping):
        return model(**{name: one.to(device) for name, one in window.items()})
    takes_ids = "input_ids" in inspect.signature(model.forward).parameters
    ids_BT = window.to(device)
    return model(input_ids=ids_BT) if takes_ids else model(ids_BT)


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Compute as written, whatever autocast the caller is in: a hook runs inside it."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield
