"""The answer "no" for a whole model: which limit cannot be kept, and the choice that comes nearest to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from narrows.errors import BudgetError
from narrows.planning._allocate_offers import damage_limit
from narrows.planning._allocate_reasons import listed, nats, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from narrows._values import ModelBudget, ModelPlan
    from narrows.planning._allocate_offers import Limit, Offers, Places

    Build = Callable[[Offers, Places, Sequence[str]], ModelPlan]

BEYOND_USE = 9.0  # nats: a perplexity 8103 times as large


def infeasible(offers: Offers, budget: ModelBudget, limits: Sequence[Limit], build: Build) -> BudgetError:
    """Return the error for a budget that no choice keeps; its `nearest` is a ModelPlan.

    Limits are taken in turn: perplexity, keep, max_bytes, speedup. Nearest is what keeps those before the first one
    that cannot be kept with them, comes closest to that one, and has the least damage of such choices.
    """
    known = [] if budget.perplexity is None else [damage_limit(offers, budget.perplexity)]
    asked = [*known, *limits]
    kept, broken, picks = _nearest(offers, asked)
    together = _all(asked)
    why = f"Part of the choice that comes nearest; it does not meet {broken}."
    plan = build(offers, picks, [why] * len(picks))
    with_kept = f"With {_all(kept)} the" if kept else "The"
    text = f"No choice meets {together}. {with_kept} {_extreme(broken, plan)}: {_figures(broken, plan)}."
    return BudgetError(text + _price_of_others(offers, budget, limits), plan)


def _nearest(offers: Offers, asked: Sequence[Limit]) -> tuple[Sequence[Limit], Limit, Places]:
    """Return the limits that can be kept, the first that cannot with them, and the nearest choice."""
    for place, limit in enumerate(asked):
        kept = asked[:place]
        if limit.name == "perplexity":
            continue  # dense keeps it
        closest = offers.least(limit.costs, kept)
        assert closest is not None, "the limits before can be kept"
        reached = offers.sum_of(limit.costs, closest.picks)
        if reached > limit.most:
            nearest = offers.least(offers.damage, [*kept, limit.at_most(reached)])
            return kept, limit, closest.picks if nearest is None else nearest.picks
    raise AssertionError("the budget can be kept")


def _all(limits: Sequence[Limit]) -> str:
    return listed([str(limit) for limit in limits])


def _extreme(limit: Limit, plan: ModelPlan) -> str:
    if limit.name == "speedup":
        return f"largest speedup is {plan.speedup:.4g}"
    if limit.name == "keep":
        return f"smallest keep is {plan.kept:.4g}"
    return f"smallest size is {plan.num_bytes} bytes"


def _figures(limit: Limit, plan: ModelPlan) -> str:
    """Return the other figures of the nearest plan."""
    parts = [] if limit.name == "keep" else [f"keep {plan.kept:.4g}"]
    if limit.name != "speedup" and plan.speedup is not None:
        parts.append(f"speedup {plan.speedup:.4g}")
    parts += [] if limit.name == "max_bytes" else [f"{plan.num_bytes} bytes"]
    return ", ".join([*parts, f"damage {damage_text(plan.damage)}"])


def damage_text(damage: float) -> str:
    """Return damage with what it does to the perplexity: "0.12 nats a token (perplexity +12.7 %)"."""
    growth = math.expm1(min(damage, BEYOND_USE))
    if damage > BEYOND_USE:
        shown = f"over {math.exp(BEYOND_USE):.0f} times"
    else:
        shown = f"+{percent(growth)}" if growth < 1 else f"{growth + 1:.4g} times"
    return f"{nats(damage)} a token (perplexity {shown})"


def _price_of_others(offers: Offers, budget: ModelBudget, limits: Sequence[Limit]) -> str:
    """Return what keeping all limits but the perplexity would take."""
    if budget.perplexity is None:
        return ""
    least = offers.least(offers.damage, limits)
    together = _all(limits)
    if least is None:
        return f" No choice meets {together} at any damage."
    damage = offers.sum_of(offers.damage, least.picks) * offers.damage_unit
    return f" {together} can be met at a damage of {damage_text(damage)}."
