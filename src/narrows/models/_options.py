"""What each layer of a model could become: its forms and ranks with their numbers, damage and time.

Letters: D input, E output features, R rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._values import LayerOption, LayerOptions
from narrows.planning import menu

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from narrows._values import Form
    from narrows.models._match import Target
    from narrows.models._times import Times


def layer_options(
    targets: Sequence[Target],
    damages: Mapping[str, Sequence[float]],
    *,
    forms: Sequence[Form],
    times: Times | None = None,
) -> tuple[LayerOptions, ...]:
    """Return the options of every layer, dense first.

    Args:
        targets: the layers.
        damages: by layer, the growth of the loss in nats a token at rank 0, 1, ..., min(D, E).
        forms: beside dense.
        times: with them only ranks that were measured are offered.
    """
    return tuple(
        LayerOptions(
            target.name,
            target.in_features,
            target.out_features,
            tuple(_options(target, damages[target.name], forms, times)),
        )
        for target in targets
    )


def numbers(form: Form, in_features: int, out_features: int, rank: int | None) -> int:
    """Return how many numbers a weight takes: D E, R (D + E) or R (D + E - R)."""
    if rank is None:
        return in_features * out_features
    return rank * (in_features + out_features - (rank if form == "pivot" else 0))


def _options(
    target: Target, damages: Sequence[float], forms: Sequence[Form], times: Times | None
) -> Iterator[LayerOption]:
    D, E = target.in_features, target.out_features
    itemsize = target.module.weight.element_size()  # type: ignore[operator]
    thin = [(form, rank) for form in forms for rank in _ranks(form, D, E, times)]
    all_forms: list[tuple[Form, int | None]] = [("dense", None), *thin]
    for form, rank in all_forms:
        kept = numbers(form, D, E, rank)
        damage = 0.0 if rank is None else float(damages[rank])
        time_ns, is_faster = (None, None) if times is None else times.of(D, E, form, rank)
        yield LayerOption(form, rank, kept, kept * itemsize, damage, time_ns, is_faster)


def _ranks(form: Form, in_features: int, out_features: int, times: Times | None) -> tuple[int, ...]:
    if times is not None:
        return times.ranks(in_features, out_features, form)
    return menu(in_features, out_features, form)
