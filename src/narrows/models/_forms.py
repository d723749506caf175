"""What stands in a compressed layer's place, by form: how it is recognised, described, made empty and undone.

A further form is one more entry of `FORMS`: save, load and densify read nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from narrows._values import Plan
from narrows.errors import FileError, InputError
from narrows.models._attention_form import (
    LINEARS,
    attention_details,
    attention_replaces,
    empty_attention,
    restore_attention,
)
from narrows.models._attention_module import ModelAttention
from narrows.nn import LowRankLinear, PivotLinear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TRANSPOSED = "is_transposed"  # set on a module that replaced GPT-2's Conv1D, whose weight is (D, E)


@dataclass(frozen=True)
class SavedForm:
    """One form that a layer can have in a folder.

    Attributes:
        kind: the module's class; it has a `rank`.
        linears: names of its children, which must be nothing but nn.Linear to be saved.
        details: module -> what a manifest keeps beside form and rank, as JSON.
        replaces: details -> weights of the dense layer, whose names a folder keeps with nothing in them.
        empty: (dense layer, rank, details) -> module in its place, without values, on its device.
        restore: (module with values, details); says again what the module knew of itself.
        merge: module -> the dense one; for linear layers an nn.Linear.
    """

    kind: type[nn.Module]
    linears: tuple[str, ...]
    details: Callable[[Any], dict[str, Any]]
    replaces: Callable[[Mapping[str, Any]], tuple[str, ...]]
    empty: Callable[[nn.Module, int, Mapping[str, Any]], nn.Module]
    restore: Callable[[Any, Mapping[str, Any]], None]
    merge: Callable[[Any], nn.Module]


def form_name(module: nn.Module) -> str | None:
    """Return the form of a module that is a compressed layer; None for any other."""
    return next((name for name, form in FORMS.items() if type(module) is form.kind), None)


def compressed_layers(model: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Yield (name, form, module) of every compressed layer, in the model's order."""
    for name, module in model.named_modules():
        form = form_name(module)
        if form is not None:
            yield name, form, module


def sizes_of(layer: nn.Module) -> tuple[int, int]:
    """Return (D, E) of a dense linear layer.

    Raises:
        InputError: it is neither nn.Linear nor Conv1D.
    """
    if is_conv1d(layer):
        rows, columns = layer.weight.shape  # type: ignore[misc]
        return int(rows), int(columns)
    if type(layer) is nn.Linear:
        return layer.in_features, layer.out_features
    raise InputError(f"a {type(layer).__name__} is neither nn.Linear nor Conv1D: it cannot be replaced.")


def is_conv1d(layer: nn.Module) -> bool:
    """Return whether a layer is GPT-2's Conv1D, which keeps its weight as (D, E)."""
    from transformers.pytorch_utils import Conv1D

    return type(layer) is Conv1D


def _empty(kind: type[LowRankLinear | PivotLinear]) -> Callable[..., nn.Module]:
    def made(layer: nn.Module, rank: int, _: Mapping[str, Any]) -> nn.Module:
        D, E = sizes_of(layer)
        weight: Any = layer.weight
        has_bias = getattr(layer, "bias", None) is not None
        return kind(D, E, rank, bias=has_bias, device=weight.device, dtype=weight.dtype)

    return made


def _low_rank_details(layer: LowRankLinear) -> dict[str, Any]:
    plan = None if layer.plan is None else json.loads(layer.plan.to_json())
    return {"is_ordered": layer.is_ordered, "plan": plan}


def _restore_low_rank(layer: LowRankLinear, details: Mapping[str, Any]) -> None:
    layer.is_ordered = details.get("is_ordered") is True
    if details.get("plan") is not None:
        layer.plan = Plan.from_json(json.dumps(details["plan"]), source="the layer's plan")


def _restore_pivot(layer: PivotLinear, _: Mapping[str, Any]) -> None:
    try:
        layer.pivot  # noqa: B018 (asks for the order)
    except InputError as fault:
        raise FileError(f"the places of features are no permutation: {fault}") from None


FORMS = {
    "low-rank": SavedForm(
        kind=LowRankLinear,
        linears=("down", "up"),
        details=_low_rank_details,
        replaces=lambda _: ("weight",),
        empty=_empty(LowRankLinear),
        restore=_restore_low_rank,
        merge=LowRankLinear.merge,
    ),
    "pivot": SavedForm(
        kind=PivotLinear,
        linears=("down", "up"),
        details=lambda _: {},
        replaces=lambda _: ("weight",),
        empty=_empty(PivotLinear),
        restore=_restore_pivot,
        merge=PivotLinear.merge,
    ),
    "attention": SavedForm(
        kind=ModelAttention,
        linears=LINEARS,
        details=attention_details,
        replaces=attention_replaces,
        empty=empty_attention,
        restore=restore_attention,
        merge=ModelAttention.merge,
    ),
}
