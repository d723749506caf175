"""A plan carried out: every layer replaced by what was chosen for it, in place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from narrows._files import missing_name
from narrows._values import Factors, PivotFactors
from narrows.errors import InputError, ShapeError
from narrows.models._forms import TRANSPOSED, is_conv1d, sizes_of
from narrows.models._joint import check_joinable, join_, joint_name, refuses_joining
from narrows.models._options import numbers, split_numbers
from narrows.models._quantizer import check_unquantised, mark
from narrows.models._summary import LayerSummary, Summary
from narrows.nn import LowRankLinear, PivotLinear
from narrows.nn._plain import is_plain_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from narrows._values import LayerChoice, ModelPlan

Part = Factors | PivotFactors
_PART = {"low-rank": Factors, "pivot": PivotFactors}


def apply_(model: nn.Module, plan: ModelPlan, parts: Mapping[str, Part]) -> Summary:
    """Replace the layers of a model by what a plan chose, in place; return what was done.

    A layer keeps its bias, dtype, device, mode and whether it asks for gradients; a Conv1D becomes a
    module in nn.Linear's layout. Layers that share a projection become one module, `gate_up_proj`. A layer that
    shares its weight with another, has hooks, or is no plain layer stays dense, and the summary says why.

    Args:
        model: with every layer that the plan names.
        plan: what every layer becomes.
        parts: layer -> factors (form "low-rank") or pivot form ("pivot") at the chosen rank; of layers that share a
            projection the first one's name -> that of their stack. Others are not read.

    Raises:
        InputError: a layer is missing in the model or in `parts`, a part has another form, layers cannot share a
            projection, or the model is quantised.
        ShapeError: a part has other sizes or another rank than the plan says. Nothing was changed.
    """
    check_unquantised(model)
    modules = dict(model.named_modules())
    for choice in plan.layers:
        _check_layer(choice, modules, type(model).__name__)
    by_name = {choice.layer: choice for choice in plan.layers}
    units = [[by_name[name] for name in names] for names in dict.fromkeys(one.together for one in plan.layers)]
    for unit in units:
        _check_part(unit, parts, modules)
    users = _users(model)
    done = {one.layer: one for unit in units for one in _replace(model, unit, parts.get(unit[0].layer), users)}
    mark(model)
    return Summary(tuple(done[choice.layer] for choice in plan.layers))


def _check_layer(choice: LayerChoice, modules: Mapping[str, nn.Module], model: str) -> None:
    name = choice.layer
    if name not in modules or not name:
        raise InputError(missing_name("layer", name, tuple(modules), model) + " The plan is for another model.")
    if sizes_of(modules[name]) != (choice.in_features, choice.out_features):
        raise ShapeError(
            f"layer {name} has (D, E) = {sizes_of(modules[name])}, the plan says "
            f"{(choice.in_features, choice.out_features)}: it is for another model."
        )


def _check_part(unit: Sequence[LayerChoice], parts: Mapping[str, Part], modules: Mapping[str, nn.Module]) -> None:
    """Raise unless there is a part for a layer, or for the layers of a stack, of the form and sizes of the plan."""
    chosen, name = unit[0].chosen, ", ".join(one.layer for one in unit)
    if chosen.form == "dense":
        return
    if chosen.stack:
        check_joinable(chosen.stack, modules)
    part = parts.get(unit[0].layer)
    if part is None or not isinstance(part, _PART[chosen.form]):
        found = "nothing" if part is None else type(part).__name__
        raise InputError(
            f"layer {name} becomes {chosen.kind}: parts must hold {_PART[chosen.form].__name__}, not {found}."
        )
    sizes = (part.in_features, part.out_features, part.rank)
    wanted = (unit[0].in_features, sum(one.out_features for one in unit), chosen.rank)
    if sizes != wanted:
        raise ShapeError(f"the part of layer {name} has (D, E, R) = {sizes}, the plan says {wanted}.")


def _replace(
    model: nn.Module, unit: Sequence[LayerChoice], part: Part | None, users: Mapping[int, list[str]]
) -> list[LayerSummary]:
    """Replace one layer, or the layers of a stack by one; return what was done to each."""
    chosen = unit[0].chosen
    olds = [model.get_submodule(one.layer) for one in unit]
    if part is None or chosen.form == "dense":
        return [_left(one, old, one.reason) for one, old in zip(unit, olds, strict=True)]
    refusals = [_refusal(one.layer, old, users) for one, old in zip(unit, olds, strict=True)]
    if chosen.stack:
        refusals.append(refuses_joining(model, chosen.stack))
    refusal = next((one for one in refusals if one is not None), None)
    if refusal is not None:
        return [_left(one, old, refusal, is_refused=True) for one, old in zip(unit, olds, strict=True)]
    name = joint_name(chosen.stack) if chosen.stack else unit[0].layer
    model.set_submodule(name, _made(join_(model, chosen.stack) if chosen.stack else olds[0], part))
    after = numbers(chosen.form, part.in_features, part.out_features, part.rank)
    shares = split_numbers(after, [one.out_features for one in unit])
    return [
        replace(_left(one, old, one.reason), form=chosen.kind, rank=part.rank, after=share)
        for one, old, share in zip(unit, olds, shares, strict=True)
    ]


def _left(choice: LayerChoice, layer: nn.Module, reason: str, *, is_refused: bool = False) -> LayerSummary:
    """Return the line of a layer that stays dense."""
    D, E = choice.in_features, choice.out_features
    was = f"{type(layer).__name__} {D} -> {E}"
    return LayerSummary(choice.layer, was, "dense", None, D * E, D * E, reason, is_refused=is_refused)


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
