"""Taking over what was made of a copy, and giving a copy weights of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from narrows.models._forms import compressed_layers
from narrows.models._joint import join_, stands_for
from narrows.models._match import blocks
from narrows.models._quantizer import mark

if TYPE_CHECKING:
    from collections.abc import Iterable

    from narrows.models._compress_trial import Built
    from narrows.models._recover import Trained


def own_weights_(copied: nn.Module, trained: Trained) -> None:
    """Give a copy that shares its tensors with another parameters of its own, where training moves them."""
    owners: Iterable[nn.Module] = (layer for _, _, layer in compressed_layers(copied))
    if trained == "blocks":
        owners = (block for _, block in blocks(copied))
    known: dict[int, nn.Parameter] = {}
    for module in [part for owner in owners for part in owner.modules()]:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in known:
                copy = parameter.detach().clone(memory_format=torch.preserve_format)
                known[id(parameter)] = nn.Parameter(copy, parameter.requires_grad)
            setattr(module, name, known[id(parameter)])


def adopt_(model: nn.Module, made: Built) -> None:
    """Put the layers of a compressed copy into the model, and the weights that recovery moved."""
    for name, _, layer in list(compressed_layers(made.model)):
        stack = stands_for(made.model, name)
        old = model.get_submodule(name) if stack == (name,) else join_(model, stack)
        layer.train(old.training)
        model.set_submodule(name, layer)
    if made.is_trained:
        moved = dict(made.model.named_parameters())
        for name, parameter in model.named_parameters():
            parameter.data = moved[name].data
    mark(model)
