"""A plan carried out: every layer replaced by what was chosen for it, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from narrows._files import missing_name
from narrows._values import Factors, PivotFactors
from narrows.errors import InputError, ShapeError
from narrows.models._forms import TRANSPOSED, is_conv1d, sizes_of
from narrows.models._quantizer import check_unquantised, mark
from narrows.models._summary import LayerSummary, Summary
from narrows.nn import LowRankLinear, PivotLinear
from narrows.nn._plain import is_plain_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from narrows._values import LayerChoice, ModelPlan

Part = Factors | PivotFactors
_PART = {"low-rank": Factors, "pivot": PivotFactors}


def apply_(model: nn.Module, plan: ModelPlan, parts: Mapping[str, Part]) -> Summary:
    """Replace the layers of a model by what a plan chose, in place; return what was done.

    A layer keeps its bias, dtype, device, mode and whether it asks for gradients; a Conv1D becomes a
    module in nn.Linear's layout. A layer that shares its weight with another, has hooks, or is no
    plain layer stays dense, and the summary says why.

    Args:
        model: with every layer that the plan names.
        plan: what every layer becomes.
        parts: layer -> factors (form "low-rank") or pivot form ("pivot") at the chosen rank; others are not read.

    Raises:
        InputError: a layer is missing in the model or in `parts`, a part has another form, or the model is quantised.
        ShapeError: a part has other sizes or another rank than the plan says. Nothing was changed.
    """
    check_unquantised(model)
    modules = dict(model.named_modules())
    for choice in plan.layers:
        _check_choice(choice, modules, parts, type(model).__name__)
    users = _users(model)
    done = tuple(_replace(model, choice, parts.get(choice.layer), users) for choice in plan.layers)
    mark(model)
    return Summary(done)


def _check_choice(choice: LayerChoice, modules: Mapping[str, nn.Module], parts: Mapping[str, Part], model: str) -> None:
    name, chosen = choice.layer, choice.chosen
    if name not in modules or not name:
        raise InputError(missing_name("layer", name, tuple(modules), model) + " The plan is for another model.")
    if sizes_of(modules[name]) != (choice.in_features, choice.out_features):
        raise ShapeError(
            f"layer {name} has (D, E) = {sizes_of(modules[name])}, the plan says "
            f"{(choice.in_features, choice.out_features)}: it is for another model."
        )
    if chosen.form == "dense":
        return
    part = parts.get(name)
    if part is None or not isinstance(part, _PART[chosen.form]):
        found = "nothing" if part is None else type(part).__name__
        raise InputError(
            f"layer {name} becomes {chosen.form}: parts must hold {_PART[chosen.form].__name__}, not {found}."
        )
    sizes = (part.in_features, part.out_features, part.rank)
    if sizes != (choice.in_features, choice.out_features, chosen.rank):
        raise ShapeError(
            f"the part of layer {name} has (D, E, R) = {sizes}, the plan says "
            f"{(choice.in_features, choice.out_features, chosen.rank)}."
        )


def _replace(model: nn.Module, choice: LayerChoice, part: Part | None, users: Mapping[int, list[str]]) -> LayerSummary:
    old: Any = model.get_submodule(choice.layer)
    D, E = choice.in_features, choice.out_features
    was = f"{type(old).__name__} {D} -> {E}"
    chosen, before = choice.chosen, D * E
    if part is None or chosen.form == "dense":
        return LayerSummary(choice.layer, was, "dense", None, before, before, choice.reason)
    refusal = _refusal(choice.layer, old, users)
    if refusal is not None:
        return LayerSummary(choice.layer, was, "dense", None, before, before, refusal, is_refused=True)
    new = _made(old, part)
    model.set_submodule(choice.layer, new)
    after = part.rank * (D + E) if isinstance(part, Factors) else part.rank * (D + E - part.rank)
    return LayerSummary(choice.layer, was, chosen.form, part.rank, before, after, choice.reason)


def _refusal(name: str, layer: Any, users: Mapping[int, list[str]]) -> str | None:
    """Return why a layer cannot be replaced without changing something else; None where it can."""
    weight = layer.weight
    if weight.is_meta:
        return "its weight is on the meta device, without values"
    if not (weight.is_floating_point() and is_plain_tensor(weight.data)):
        return f"its weight is {type(weight.data).__name__} of {weight.dtype}, not a plain floating tensor"
    others = [user for user in users[id(weight)] if user != f"{name}.weight"]
    if others:
        return f"its weight is also {others[0]}: replacing it would untie them"
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or "forward" in vars(layer):  # noqa: SLF001
        return "it has hooks or a forward of its own, which would be lost"
    return None


def _users(model: nn.Module) -> dict[int, list[str]]:
    """Return names of every parameter by its identity: a tied one has several."""
    users: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        users.setdefault(id(parameter), []).append(name)
    return users


def _made(old: Any, part: Part) -> nn.Module:
    """Return the module for a part, with all else that the old one had."""
    weight, bias = old.weight, old.bias
    new: LowRankLinear | PivotLinear
    if isinstance(part, Factors):
        new = LowRankLinear.from_factors(part.to(weight.device, weight.dtype), bias)
    else:
        rows, rest = part.rows.to(weight.device, weight.dtype), part.rest.to(weight.device, weight.dtype)
        new = PivotLinear.from_pivot(PivotFactors(rows, rest, part.order), bias)
    for name, parameter in new.named_parameters():
        asked = bias if name.endswith("bias") else weight
        parameter.requires_grad_(asked.requires_grad)
    setattr(new, TRANSPOSED, is_conv1d(old))
    return new.train(old.training)
