"""What is chosen at once: an option of one layer, or one of every layer of a stack.

Layers of a stack either take options of their own, each by itself, or share a projection: then all of them do, in one
form and at one rank. So a stack is one class of the multiple-choice knapsack, and its choices are all combinations of
its layers' own options, without those that another one beats, and the shared forms.

Letters: N options of all layers, L layers, M choices of a unit, S its layers, F figures.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from narrows.errors import InputError
from narrows.planning._allocate_search import beaten_nearby

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from narrows._values import LayerOption, LayerOptions
    from narrows.planning._allocate_offers import Floats, Offers, Places

    Rows = npt.NDArray[np.int64]


def stacks_of(layers: Sequence[LayerOptions]) -> tuple[tuple[int, ...], ...]:
    """Return the places of every stack's layers, in the stack's order.

    Raises:
        InputError: a stack whose layers do not all offer the same shared forms, or a layer in two stacks.
    """
    places = {layer.layer: place for place, layer in enumerate(layers)}
    offered = {layer.layer: {_shared(one) for one in layer.options if one.stack} for layer in layers}
    found: dict[tuple[str, ...], None] = {}
    for layer, shared in offered.items():
        for stack in dict.fromkeys(stack for stack, _, _ in sorted(shared)):
            _check_stack(layer, stack, shared, offered)
            found[stack] = None
    return tuple(tuple(places[name] for name in stack) for stack in found)


def _shared(option: LayerOption) -> tuple[tuple[str, ...], str, int]:
    return option.stack, option.form, option.rank or 0


def _check_stack(layer: str, stack: tuple[str, ...], shared: object, offered: Mapping[str, object]) -> None:
    if layer not in stack or len(set(stack)) != len(stack):
        raise InputError(f"options: {layer!r} has a form for the stack {stack}: it must be in it, and each name once.")
    for other in stack:
        if other not in offered:
            raise InputError(f"options: {layer!r} shares a form with {other!r}, which is not among the layers.")
        if offered[other] != shared:
            raise InputError(
                f"options: {layer!r} and {other!r} are of one stack and offer different shared forms. Give both the "
                "same, and each layer one stack at most."
            )


def units(offers: Offers, figures: Floats) -> list[Rows]:
    """Return (M, S) places of options for every layer and stack; none that another beats or equals in all figures.

    Of equals the one with more dense layers is kept, then layers by themselves, then the larger ranks.

    Args:
        figures: (F, N), what counts of every option.
    """
    own = [_own(offers, figures, first, last) for first, last in pairwise([*offers.dense, len(offers.options)])]
    in_stacks = {layer for stack in offers.stacks for layer in stack}
    single = [np.sort(places)[:, None] for layer, places in enumerate(own) if layer not in in_stacks]
    ranks = np.array([one.rank or 0 for one in offers.options])
    return single + [_of_stack(offers, figures, ranks, own, stack) for stack in offers.stacks]


def layers_of(offers: Offers, rows: Sequence[Places]) -> Places:
    """Return (L,) the place of each layer's option, of one row of every unit."""
    every = np.concatenate(rows)
    return every[np.argsort(offers.owners[every])]


def _own(offers: Offers, figures: Floats, first: int, last: int) -> Places:
    """Return the places of one layer's own options, the preferred ones of equals first."""
    mine = [place for place in range(first, last) if not offers.options[place].stack]
    places = np.array(sorted(mine, key=lambda place: -(offers.options[place].rank or math.inf)), dtype=np.int64)
    return places[_undominated(figures[:, places])]


def _of_stack(offers: Offers, figures: Floats, ranks: Places, own: Sequence[Places], stack: tuple[int, ...]) -> Rows:
    """Return (M, S) places: combinations of the layers' own options, layer by layer, and the shared forms."""
    rows = own[stack[0]][:, None]
    for layer in stack[1:]:
        rows = np.hstack([rows.repeat(len(own[layer]), axis=0), np.tile(own[layer], len(rows))[:, None]])
        rows = rows[np.lexsort((-ranks[rows].sum(1), -(ranks[rows] == 0).sum(1)))]
        rows = rows[_undominated(figures[:, rows].sum(-1))]
    rows = np.concatenate([rows, _shared_rows(offers, stack)])
    return rows[_undominated(figures[:, rows].sum(-1))]


def _shared_rows(offers: Offers, stack: tuple[int, ...]) -> Rows:
    """Return (M, S) places of the shared forms that every layer still offers, larger ranks first."""
    ends = [*offers.dense, len(offers.options)]
    by_form = [
        {_shared(offers.options[place]): place for place in range(ends[layer], ends[layer + 1])} for layer in stack
    ]
    forms = sorted(set.intersection(*map(set, by_form)), key=lambda form: -form[2])
    rows = [[one[form] for one in by_form] for form in forms if form[0]]
    return np.array(rows, dtype=np.int64).reshape(-1, len(stack))


def _undominated(figures: Floats) -> Places:
    """Return the places of columns (F, M) that no other beats or equals in everything; of equals the first one."""
    sorting: Places = np.lexsort(figures[::-1])
    if len(figures) == 2:
        damage = figures[1, sorting]
        return np.asarray(sorting[np.append(True, damage[1:] < np.minimum.accumulate(damage)[:-1])])
    sorting = sorting[~beaten_nearby(figures[:, sorting])] if len(figures) > 1 else sorting[:1]
    here = figures[:, sorting]
    covers = (here[:, :, None] <= here[:, None, :]).all(0)
    return np.asarray(sorting[~np.triu(covers, 1).any(0)])
