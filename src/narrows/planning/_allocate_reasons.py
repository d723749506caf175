"""Why each layer becomes what it becomes: one sentence with the figures that decided.

At the optimum every limit has a price: the damage that one more unit of it would save. What an option saves of the
limits is worth that much damage; where it does more damage than its saving is worth, it is not taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from narrows._values import LayerOption, LayerOptions
    from narrows.planning._allocate_offers import Floats, Limit, LimitName, Offers, Places

NOUNS: dict[LimitName, str] = {"keep": "numbers", "max_bytes": "bytes", "speedup": "time", "perplexity": "damage"}


@dataclass(frozen=True, slots=True)
class _Priced:
    """An option against dense, or one of several layers together against all of them dense.

    Attributes:
        damage: nats a token.
        worth: of what it saves, at the prices of the limits; nats a token; below 0 where it costs more.
        saved: (noun, share of dense's) for every limit.
    """

    option: LayerOption
    damage: float
    worth: float
    saved: tuple[tuple[str, float], ...]

    @property
    def bargain(self) -> float:
        """Worth for each nat of damage."""
        return self.worth / self.damage if self.damage > 0 else float("inf")


def reasons(offers: Offers, limits: Sequence[Limit], picks: Places, prices: Floats) -> tuple[str, ...]:
    """Return one sentence for every layer.

    Args:
        offers: what could be chosen.
        limits: that the choice keeps.
        picks: (L,), the choice.
        prices: (K,), of the limits, in units of damage a unit of cost.
    """
    worths = prices * offers.damage_unit
    ends = [*offers.dense, len(offers.options)]
    found = []
    for layer, taken in enumerate(picks):
        own = range(ends[layer], ends[layer + 1])
        priced = {
            place: _priced(offers, limits, worths, {place: ends[layer]})
            for place in own
            if not offers.options[place].stack
        }
        option = offers.options[taken]
        if option.stack:
            found.append(_why_shared(offers, limits, worths, layer, option))
        elif option.form == "dense":
            found.append(_why_dense(offers.layers[layer], list(priced.values()), bool(worths.any())))
        else:
            found.append(_why_thin(priced[taken], list(priced.values())))
    return tuple(found)


def _why_shared(offers: Offers, limits: Sequence[Limit], worths: Floats, layer: int, taken: LayerOption) -> str:
    """Return why layers share a projection: the figures of all of them together."""
    ends = [*offers.dense, len(offers.options)]
    together: dict[tuple[str, int | None], dict[int, int]] = {}
    for one in next(stack for stack in offers.stacks if layer in stack):
        for place in range(ends[one], ends[one + 1]):
            option = offers.options[place]
            if option.stack:
                together.setdefault((option.form, option.rank), {})[place] = ends[one]
    priced = {form: _priced(offers, limits, worths, places) for form, places in together.items()}
    why = _why_thin(priced[taken.form, taken.rank], list(priced.values()))
    others = [name for name in taken.stack if name != offers.layers[layer].layer]
    return f"Together with {listed(others)}: {why[0].lower()}{why[1:]}"


def _priced(offers: Offers, limits: Sequence[Limit], worths: Floats, places: Mapping[int, int]) -> _Priced:
    """Return what options save of each limit, all of them together.

    Args:
        places: of the options, one a layer -> that of its dense one.
    """
    before = [float(sum(limit.costs[dense] for dense in places.values())) for limit in limits]
    after = [float(sum(limit.costs[place] for place in places)) for limit in limits]
    saved = [one - other for one, other in zip(before, after, strict=True)]
    shares = tuple(
        (NOUNS[limit.name], save / max(one, 1.0)) for limit, save, one in zip(limits, saved, before, strict=True)
    )
    worth = float(sum(one * save for one, save in zip(worths, saved, strict=True)))
    damage = sum(offers.options[place].damage for place in places)
    return _Priced(offers.options[next(iter(places))], damage, worth, shares)


def _why_dense(layer: LayerOptions, priced: Sequence[_Priced], is_bound: bool) -> str:
    others = priced[1:]
    if not others:
        return _why_no_other(layer)
    if not is_bound:
        return "The budget is met without changing it."
    best = max(others, key=lambda one: one.bargain)
    if best.worth <= 0:
        return f"None of its {len(others)} other forms saves any {' or '.join(noun for noun, _ in best.saved)}."
    figures = f"the best, {best.option}, would {_saves(best, 'save')} for {nats(best.damage)}"
    if best.damage > best.worth:
        return f"No smaller form is worth its damage: {figures}, and this budget pays {nats(best.worth)} for that."
    return f"The limit is met without a smaller form: {figures}, and this budget would pay {nats(best.worth)} for that."


def _why_no_other(layer: LayerOptions) -> str:
    others = [option for option in layer.options[1:] if not option.stack]
    if not others:
        return "No other form was offered."
    untimed = sum(option.time_ns is None for option in others)
    slow = len(others) - untimed
    parts = [f"{slow} are not faster than dense beyond a tie"] if slow else []
    parts += [f"{untimed} have no measured time"] if untimed else []
    return f"None of its {len(others)} other forms can gain time: {' and '.join(parts)}."


def _why_thin(chosen: _Priced, priced: Sequence[_Priced]) -> str:
    figures = f"{str(chosen.option).capitalize()} {_saves(chosen, 'saves')} for {nats(chosen.damage)}"
    paid = f"and this budget pays {nats(chosen.worth)} for that"
    if chosen.damage > chosen.worth:
        paid = f"more than the {nats(chosen.worth)} that this budget pays, because the limit cannot be met for less"
    return f"{figures}, {paid}{_next_larger(chosen, priced)}."


def _next_larger(chosen: _Priced, priced: Sequence[_Priced]) -> str:
    """Return what the best form with less damage would spare and cost, beside dense only if there is no other."""
    larger = [one for one in priced if one.damage < chosen.damage and one.worth < chosen.worth]
    if not larger:
        return ""
    best = max(larger, key=lambda one: (chosen.damage - one.damage) / (chosen.worth - one.worth))
    spared, cost = chosen.damage - best.damage, chosen.worth - best.worth
    return f"; {best.option} would spare {nats(spared)} of it and give up savings worth {nats(cost)}"


def _saves(priced: _Priced, verb: str) -> str:
    """Return "save 38 % of its numbers and 21 % of its time"; what grows is named too."""
    costs = {"save": "cost", "saves": "costs"}[verb]
    gains = [f"{percent(share)} of its {noun}" for noun, share in priced.saved if share > 0]
    losses = [f"{percent(-share)} more {noun}" for noun, share in priced.saved if share < 0]
    parts = [f"{verb} {listed(gains)}"] if gains else []
    parts += [f"{costs} {listed(losses)}"] if losses else []
    return " and ".join(parts) or f"{verb} nothing"


def listed(parts: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def nats(value: float) -> str:
    """Return damage with three significant figures."""
    return f"{value:.3g} nats"


def percent(share: float) -> str:
    """Return a share with three significant figures: 38.2 %."""
    return f"{100 * share:.3g} %"
