"""What each layer of a model could become: its forms and ranks with their numbers, damage and time.

Letters: D input, E output features, R rank.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from narrows._values import LayerOption, LayerOptions
from narrows.planning import menu

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from narrows._values import Form
    from narrows.models._match import Target
    from narrows.models._stacks import Stack
    from narrows.models._times import Times


def layer_options(
    targets: Sequence[Target],
    damages: Mapping[str, Sequence[float]],
    *,
    forms: Sequence[Form],
    times: Times | None = None,
    stacks: Sequence[Stack] = (),
) -> tuple[LayerOptions, ...]:
    """Return the options of every layer: dense, its own, and those that it shares with other layers.

    Args:
        targets: the layers.
        damages: by layer, and by stack, the growth of the loss in nats a token at rank 0, 1, ..., min(D, E).
        forms: beside dense.
        times: with them only ranks that were measured are offered.
        stacks: layers that may share a projection, in the same forms.
    """
    found = {target.name: list(_options(target, damages[target.name], forms, times)) for target in targets}
    for stack in stacks:
        for shared in _shared_options(stack, damages[stack.name], forms, times):
            for name, option in zip(stack.names, shared, strict=True):
                found[name].append(option)
    return tuple(LayerOptions(one.name, one.in_features, one.out_features, tuple(found[one.name])) for one in targets)


def numbers(form: Form, in_features: int, out_features: int, rank: int | None) -> int:
    """Return how many numbers a weight takes: D E, R (D + E) or R (D + E - R)."""
    if rank is None:
        return in_features * out_features
    return rank * (in_features + out_features - (rank if form == "pivot" else 0))


def split_numbers(total: int, sizes: Sequence[int]) -> list[int]:
    """Return whole numbers in proportion to sizes that add up to the total."""
    ends = [total * end // sum(sizes) for end in accumulate(sizes, initial=0)]
    return [last - first for first, last in pairwise(ends)]


def _options(
    target: Target, damages: Sequence[float], forms: Sequence[Form], times: Times | None
) -> Iterator[LayerOption]:
    D, E = target.in_features, target.out_features
    thin = [(form, rank) for form in forms for rank in _ranks(form, D, E, times)]
    all_forms: list[tuple[Form, int | None]] = [("dense", None), *thin]
    for form, rank in all_forms:
        kept = numbers(form, D, E, rank)
        damage = 0.0 if rank is None else float(damages[rank])
        time_ns, is_faster = (None, None) if times is None else times.of(D, E, form, rank)
        yield LayerOption(form, rank, kept, kept * _itemsize(target), damage, time_ns, is_faster)


def _shared_options(
    stack: Stack, damages: Sequence[float], forms: Sequence[Form], times: Times | None
) -> Iterator[tuple[LayerOption, ...]]:
    """Yield one option for every member at a time: each its share of the whole by output features."""
    D, E, sizes = stack.in_features, stack.out_features, [one.out_features for one in stack.members]
    for form in forms:
        for rank in _ranks(form, D, E, times):
            kept = split_numbers(numbers(form, D, E, rank), sizes)
            time_ns, is_faster = (None, None) if times is None else times.of_stack(D, sizes, form, rank)
            yield tuple(
                LayerOption(
                    form,
                    rank,
                    part,
                    part * _itemsize(stack.members[0]),
                    float(damages[rank]) * size / E,
                    None if time_ns is None else time_ns * size / E,
                    is_faster,
                    stack.names,
                )
                for part, size in zip(kept, sizes, strict=True)
            )


def _itemsize(target: Target) -> int:
    return int(target.module.weight.element_size())  # type: ignore[operator]


def _ranks(form: Form, in_features: int, out_features: int, times: Times | None) -> tuple[int, ...]:
    if times is not None:
        return times.ranks(in_features, out_features, form)
    return menu(in_features, out_features, form)
