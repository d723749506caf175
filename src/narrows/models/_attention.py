"""The attention of a model narrowed, in place.

Letters: H heads, G key heads, K width of a head, R and F widths of keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from narrows._values import Moments
    from narrows.decompose import HeadMaps, ValueMaps
    from narrows.models.families._family import Family, HeadSizes
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


Widths = AttentionWidths | Mapping[str, AttentionWidths]


def attention_(
    model: nn.Module,
    moments: Mapping[str, Moments],
    widths: Widths,
    *,
    context: int = CONTEXT,
    progress: Progress | None = None,
) -> AttentionSummary:
    """Narrow the heads of a model's attention, in place; return what was done and what was not, with reasons.

    Queries and keys are narrowed together, and values with the output layer, each to the best heads of that width
    for the given moments. Caches then hold R-wide keys and F-wide values. `generate` works as before.

    Args:
        model: of transformers; attention of families that are not known stays as it is.
        moments: of the inputs of each attention's query layer (for queries and keys) and output layer (for values),
            by their names, as `calibrate` returns them: those that `attention_inputs(model, widths)` names.
        widths: for every attention, or by its name; names that are not given stay as they are.
        context: tokens at which rotary positions are averaged: the length that matters most.
        progress: called as progress(what, done, of).

    Raises:
        InputError: moments are missing, a name is no attention of the model, or the model is quantised.
        RankError: a width that the heads do not have. Nothing was changed.
    """
    check_unquantised(model)
    places = tuple(attention_layers(model))
    asked = asked_widths(model, widths)
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


def attention_inputs(model: nn.Module, widths: Widths) -> tuple[str, ...]:
    """Return the names of the layers whose calibrated inputs `attention_` needs for these widths."""
    asked, names = asked_widths(model, widths), []
    for name, module in attention_layers(model):
        family = family_of(module)
        if name in asked and family is not None and not _refusal(module, family):
            wanted, _ = _possible(family, module, asked[name])
            names += [] if wanted.query_key is None else [_query_name(name, family)]
            names += [] if wanted.value is None else [_output_name(name, family)]
    return tuple(names)


def asked_widths(model: nn.Module, widths: Widths) -> Mapping[str, AttentionWidths]:
    """Return what is asked for by the attention's name.

    Raises:
        InputError: the model has no attention, a name is none of it, or nothing is asked for.
        RankError: a width that the heads do not have.
    """
    places = dict(attention_layers(model))
    if not places:
        raise InputError(f"{type(model).__name__} has no attention.")
    asked: Mapping[str, Any] = widths if isinstance(widths, Mapping) else dict.fromkeys(places, widths)
    for name, one in asked.items():
        if name not in places:
            raise InputError(missing_name("attention", name, tuple(places), type(model).__name__))
        if not isinstance(one, AttentionWidths) or one == AttentionWidths():
            raise InputError(
                f"widths of {name} are {one!r}: give AttentionWidths with query_key, value, or both, for every "
                "attention, or a mapping of such by its name."
            )
        family = family_of(places[name])
        if family is not None:
            _check_widths(name, family.sizes(places[name]), one)
    return asked


def _check_widths(name: str, heads: HeadSizes, asked: AttentionWidths) -> None:
    for what, given, step in (("query_key", asked.query_key, 1 + heads.has_rotary), ("value", asked.value, 1)):
        is_whole = isinstance(given, int) and not isinstance(given, bool)
        if given is not None and not (is_whole and step <= given <= heads.width and given % step == 0):
            unit = "" if step == 1 else ", and even, for rotary positions turn pairs of features"
            raise RankError(
                f"{name}: {what}={given!r} must be a whole number within {step}..{heads.width}, the width of its "
                f"heads{unit}."
            )


@dataclass(frozen=True)
class _Given:
    """What `attention_` was given for all layers."""

    moments: Mapping[str, Moments]
    context: int

    def of(self, name: str) -> Moments:
        if name not in self.moments:
            raise InputError(
                f"moments lack {name}: calibrate with all layers that attention_inputs(model, widths) names as targets."
            )
        return self.moments[name]


@dataclass(frozen=True)
class _Planned:
    change: AttentionChange
    narrow: DenseAttention | None = None
    family: Family | None = None


def _planned(model: nn.Module, name: str, module: nn.Module, asked: AttentionWidths | None, given: _Given) -> _Planned:
    """Return what becomes of one attention; the model is not changed."""
    family = family_of(module)
    reason = "not asked for" if asked is None else _refusal(module, family)
    if reason or asked is None or family is None:
        return _Planned(_left(name, module, family, reason))
    dense, (wanted, reason) = family.read(module), _possible(family, module, asked)
    scores = values = None
    if wanted.query_key is not None:
        inputs, frequencies = given.of(_query_name(name, family)), family.frequencies(model, module)
        scores = _scores(dense, inputs, wanted.query_key, frequencies, given.context)
    if wanted.value is not None:
        values = _values(dense, given.of(_output_name(name, family)), wanted.value)
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


def _possible(family: Family, module: nn.Module, asked: AttentionWidths) -> tuple[AttentionWidths, str]:
    """Return the widths to make, None for what stays, and why something stays."""
    width = family.sizes(module).width
    query_key, value = (None if one == width else one for one in (asked.query_key, asked.value))
    refusal = family.refuses_query_key(module) if query_key is not None else ""
    if refusal:
        return AttentionWidths(None, value), f"queries and keys stay {width} wide: {refusal}"
    reason = "" if query_key is not None or value is not None else "its heads are of these widths"
    return AttentionWidths(query_key, value), reason


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


def _query_name(name: str, family: Family) -> str:
    return f"{name}.{family.layers[0]}"


def _output_name(name: str, family: Family) -> str:
    return f"{name}.{family.layers[3]}"


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
