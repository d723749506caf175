"""The attention of a model narrowed, in place.

Letters: H heads, G key heads, K width of a head, R and F widths of keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from narrows._files import missing_name
from narrows.decompose import (
    grouped,
    head_moments,
    mixed_moments,
    query_key,
    rotary_query_key,
    value_output,
)
from narrows.errors import InputError, RankError
from narrows.models._attention_module import ModelAttention
from narrows.models._attention_summary import AttentionChange, AttentionSummary
from narrows.models._forms import is_conv1d
from narrows.models._quantizer import check_unquantised, mark
from narrows.models.families import family_of
from narrows.nn._plain import is_plain_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn

    from narrows._values import Moments
    from narrows.decompose import HeadMaps, ValueMaps
    from narrows.models.families._family import Family
    from narrows.nn import DenseAttention

    Progress = Callable[[str, int, int], None]

# Designed for 2048 tokens, SmolLM2's heads at half width have at 4096 the error of a design for 8192 or up to 10 %
# more, and at 512 up to 30 % more than a design for 512 (four layers, one window of Wikipedia).
CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class AttentionWidths:
    """What heads become: widths of queries and keys, and of values; None leaves them as they are."""

    query_key: int | None = None
    value: int | None = None


def attention_(
    model: nn.Module,
    moments: Mapping[str, Moments],
    widths: AttentionWidths | Mapping[str, AttentionWidths],
    *,
    context: int = CONTEXT,
    progress: Progress | None = None,
) -> AttentionSummary:
    """Narrow the heads of a model's attention, in place; return what was done and what was not, with reasons.

    Queries and keys are narrowed together, and values with the output layer, each to the best heads of that width
    for the given moments. Caches then hold R-wide keys and F-wide values. `generate` works as before.

    Args:
        model: of transformers; attention of families that are not known stays as it is.
        moments: of the inputs of each attention's query and output layer, by their names, as `calibrate` returns them.
        widths: for every attention, or by its name; names that are not given stay as they are.
        context: tokens at which rotary positions are averaged: the length that matters most.
        progress: called as progress(what, done, of).

    Raises:
        InputError: moments are missing, a name is no attention of the model, or the model is quantised.
        RankError: a width that the heads do not have. Nothing was changed.
    """
    check_unquantised(model)
    places = tuple(attention_layers(model))
    asked = _asked(places, widths, model)
    made: list[_Planned] = []
    for done, (name, module) in enumerate(places):
        made.append(_planned(model, name, module, asked.get(name), _Given(moments, context)))
        if progress is not None:
            progress("attention", done + 1, len(places))
    for (name, _), plan in zip(places, made, strict=True):
        if plan.narrow is not None and plan.family is not None:
            old = model.get_submodule(name)
            model.set_submodule(name, ModelAttention.in_place_of(old, plan.narrow, plan.family))
    mark(model)
    return AttentionSummary(tuple(plan.change for plan in made))


def attention_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (name, module) of everything in a model that is attention, known or not, in the model's order."""
    inside: str | None = None
    for name, module in model.named_modules():
        if inside is not None and name.startswith(inside):
            continue
        if _is_known(module) or _is_unknown(module):
            inside = f"{name}."
            yield name, module


def attention_inputs(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers whose calibrated inputs `attention_` needs."""
    names: dict[str, None] = {}
    for name, module in attention_layers(model):
        family = family_of(module)
        if family is not None and not _refusal(module, family):
            names |= dict.fromkeys(_input_names(name, family))
    return tuple(names)


@dataclass(frozen=True)
class _Given:
    """What `attention_` was given for all layers."""

    moments: Mapping[str, Moments]
    context: int

    def of(self, name: str) -> Moments:
        if name not in self.moments:
            raise InputError(
                f"moments lack {name}: calibrate with all layers that attention_inputs(model) names as targets."
            )
        return self.moments[name]


@dataclass(frozen=True)
class _Planned:
    change: AttentionChange
    narrow: DenseAttention | None = None
    family: Family | None = None


def _asked(
    places: tuple[tuple[str, nn.Module], ...],
    widths: AttentionWidths | Mapping[str, AttentionWidths],
    model: nn.Module,
) -> Mapping[str, AttentionWidths]:
    names = tuple(name for name, _ in places)
    if isinstance(widths, AttentionWidths):
        return dict.fromkeys(names, widths)
    for name in widths:
        if name not in names:
            raise InputError(missing_name("attention", name, names, type(model).__name__))
    return widths


def _planned(model: nn.Module, name: str, module: nn.Module, asked: AttentionWidths | None, given: _Given) -> _Planned:
    """Return what becomes of one attention; the model is not changed."""
    family = family_of(module)
    reason = "not asked for" if asked is None else _refusal(module, family)
    if reason or asked is None or family is None:
        return _Planned(_left(name, module, family, reason))
    dense, (inputs, mixed) = family.read(module), map(given.of, _input_names(name, family))
    wanted, reason = _possible(family, module, dense, asked)
    scores = None
    if wanted.query_key is not None:
        scores = _scores(dense, inputs, wanted.query_key, family.frequencies(model, module), given.context)
    values = None if wanted.value is None else _values(dense, mixed, wanted.value)
    change = AttentionChange(
        name,
        type(module).__name__,
        heads=dense.heads,
        groups=dense.groups,
        width=dense.query_key_width,
        query_key_width=dense.query_key_width if scores is None else scores.width,
        value_width=dense.value_width if values is None else values.width,
        query_key_error=None if scores is None else scores.error,
        value_error=None if values is None else values.error,
        reason=reason,
    )
    if scores is None and values is None:
        return _Planned(change)
    return _Planned(change, dense.narrowed(scores, values), family)


def _possible(
    family: Family, module: nn.Module, dense: DenseAttention, asked: AttentionWidths
) -> tuple[AttentionWidths, str]:
    """Return the widths to make, None for what stays, and why something stays."""
    wanted_query_key = None if asked.query_key == dense.query_key_width else asked.query_key
    wanted_value = None if asked.value == dense.value_width else asked.value
    reason = "" if wanted_query_key is not None or wanted_value is not None else "its heads are of these widths"
    for given, most in ((wanted_query_key, dense.query_key_width), (wanted_value, dense.value_width)):
        if given is not None and not 1 <= given <= most:
            raise RankError(f"width={given} is outside 1..{most}, the width of the heads of {type(module).__name__}.")
    refusal = family.refuses_query_key(module) if wanted_query_key is not None else ""
    if refusal:
        return AttentionWidths(None, wanted_value), f"queries and keys stay {dense.query_key_width} wide: {refusal}"
    return AttentionWidths(wanted_query_key, wanted_value), reason


def _scores(dense: DenseAttention, inputs: Moments, width: int, frequencies: Tensor | None, context: int) -> HeadMaps:
    queries = head_moments(dense.query.weight, dense.query.bias, inputs, heads=dense.heads).cpu()
    is_turned = dense.pairs is not None
    keys = head_moments(dense.key.weight, dense.key.bias, inputs, heads=dense.groups, centred=not is_turned).cpu()
    summed = grouped(queries, dense.groups)
    if not is_turned:
        return query_key(summed, keys).at(width)
    if frequencies is None:
        raise InputError("the model has rotary positions, but no module of it holds their frequencies (inv_freq).")
    return rotary_query_key(summed, keys, frequencies=frequencies.cpu(), context=context).at(width)


def _values(dense: DenseAttention, mixed: Moments, width: int) -> ValueMaps:
    second = mixed_moments(mixed.inputs.cpu(), heads=dense.heads)
    return value_output(dense.output.weight.cpu(), second, groups=dense.groups).at(width)


def _input_names(name: str, family: Family) -> tuple[str, str]:
    return f"{name}.{family.layers[0]}", f"{name}.{family.layers[3]}"


def _left(name: str, module: nn.Module, family: Family | None, reason: str) -> AttentionChange:
    """Return the line of an attention that stays as it is."""
    kind = type(module).__name__
    if isinstance(module, ModelAttention):
        sizes = (module.family.sizes(module.skeleton).width, module.query_key_width, module.value_width)
        return AttentionChange(name, kind, module.heads, module.groups, *sizes, reason=reason)
    if family is None:
        return AttentionChange(name, kind, reason=reason)
    heads = family.sizes(module)
    return AttentionChange(name, kind, heads.heads, heads.groups, *(heads.width,) * 3, reason=reason)


def _refusal(module: nn.Module, family: Family | None) -> str:
    """Return why an attention stays as it is; empty where it need not."""
    if family is None:
        return "narrow already" if isinstance(module, ModelAttention) else "its family is not known"
    for name in dict.fromkeys(family.layers):
        linear: Any = module.get_submodule(name)
        if not (type(linear).__name__ == "Linear" or is_conv1d(linear)) or not is_plain_tensor(linear.weight.data):
            return f"its {name} is {type(linear).__name__}, not a plain linear layer"
        if linear._forward_hooks or linear._forward_pre_hooks or "forward" in vars(linear):  # noqa: SLF001
            return f"its {name} has hooks or a forward of its own, which would be lost"
        if linear.weight.is_meta:
            return f"the weight of its {name} is on the meta device, without values"
    return family.refuses(module)


def _is_known(module: nn.Module) -> bool:
    return isinstance(module, ModelAttention) or family_of(module) is not None


def _is_unknown(module: nn.Module) -> bool:
    """Say whether a module is attention of no known family: by its name and weights; no wrapper of a known one."""
    is_attention = "Attention" in type(module).__name__ and next(module.parameters(), None) is not None
    return is_attention and not any(_is_known(one) for one in module.modules())
