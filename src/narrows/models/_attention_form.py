"""Narrow attention in a folder: what a manifest keeps of it, and how it is made empty, checked and undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from narrows.errors import FileError, InputError
from narrows.models._attention_module import LINEARS as LINEARS
from narrows.models._attention_module import ModelAttention
from narrows.models.families import FAMILIES, family_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


def attention_details(layer: ModelAttention) -> dict[str, Any]:
    """Return what a manifest keeps beside the rank, which is the width of queries and keys."""
    return {"family": layer.family.name, "value_width": layer.value_width}


def attention_replaces(details: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the dense attention's weights that a narrow one has under other names.

    Weights of the same name have another shape, which transformers without narrows refuses.
    """
    return next((family.replaced for family in FAMILIES if family.name == details.get("family")), ())


def empty_attention(attention: nn.Module, rank: int, details: Mapping[str, Any]) -> ModelAttention:
    """Return narrow attention without values, in place of a model's own, on its device.

    Raises:
        InputError: the module is not of the family that `details` name.
        RankError: a width that its heads do not have.
    """
    family, value = family_of(attention), details.get("value_width")
    if family is None or family.name != details.get("family"):
        raise InputError(f"a {type(attention).__name__} is not attention of the family {details.get('family')!r}.")
    narrow = family.read(attention).empty(query_key=rank, value=value)  # type: ignore[arg-type]
    return ModelAttention.in_place_of(attention, narrow, family)


def restore_attention(layer: ModelAttention, _: Mapping[str, Any]) -> None:
    """Check what was read.

    Raises:
        FileError: rotary frequencies that the heads do not have, or twice.
    """
    if layer.pairs is None or layer.pairs.is_meta:
        return  # transformers leaves on the meta device what it put on a disk
    P = layer.family.sizes(layer.skeleton).width // 2
    ordered = layer.pairs.sort(dim=-1).values
    if int(ordered.min()) < 0 or int(ordered.max()) >= P or bool((ordered.diff(dim=-1) == 0).any()):
        raise FileError(f"the rotary frequencies {tuple(layer.pairs.shape)} are not different ones of 0..{P - 1}.")


def to_config(layer: ModelAttention) -> dict[str, Any]:
    """Return form, widths and kept frequencies as JSON."""
    pairs = None if layer.pairs is None else layer.pairs.tolist()
    return {"form": "attention", "rank": layer.rank, **attention_details(layer), "pairs": pairs}


def from_config(model: nn.Module, name: str, config: Mapping[str, Any]) -> ModelAttention:
    """Put narrow attention without values in place of the model's attention `name`; return it.

    Args:
        config: what `to_config` returned.
    """
    layer = empty_attention(model.get_submodule(name), config["rank"], config)
    if config.get("pairs") is not None:
        layer.pairs = torch.tensor(config["pairs"])
    model.set_submodule(name, layer)
    return layer
