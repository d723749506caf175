"""From options and a budget to a plan: what every layer of a model becomes. Exact, and pure arithmetic.

The problem is a multiple-choice knapsack (Sinha and Zoltners 1979): one option a layer, least total damage, every
limit kept. docs/explanation/allocation.md says what counts as damage and how ties are broken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from narrows._values import LayerChoice, ModelPlan
from narrows.planning._allocate_infeasible import infeasible
from narrows.planning._allocate_offers import (
    Offers,
    check_options,
    check_times,
    cost_of,
    damage_limit,
    limits_of,
)
from narrows.planning._allocate_reasons import reasons

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows._values import LayerOptions, ModelBudget, Workload
    from narrows.planning._allocate_knapsack import Solution
    from narrows.planning._allocate_offers import Limit, Places


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a plan says of itself besides its layers."""

    budget: ModelBudget
    workloads: tuple[Workload, ...]
    dtype: str
    method: str
    other_ns: float | None
    fingerprint: str
    device_name: str
    version: str

    def plan(self, offers: Offers, picks: Places, why: Sequence[str]) -> ModelPlan:
        """Return the plan of a choice with its reasons, one a layer."""
        chosen = [offers.options[place] for place in picks]
        layers = tuple(
            LayerChoice(one.layer, one.in_features, one.out_features, option, one.options[0], reason)
            for one, option, reason in zip(offers.layers, chosen, why, strict=True)
        )
        return ModelPlan(
            layers=layers,
            budget=self.budget,
            workloads=self.workloads,
            dtype=self.dtype,
            method=self.method,
            other_ns=self.other_ns,
            fingerprint=self.fingerprint,
            device_name=self.device_name,
            version=self.version,
        )


def allocate(
    options: Sequence[LayerOptions],
    budget: ModelBudget,
    *,
    workloads: Sequence[Workload] = (),
    dtype: str,
    method: str,
    other_ns: float | None = None,
    fingerprint: str = "",
    device_name: str = "",
    version: str = "",
) -> ModelPlan:
    """Return the choice of one form for every layer that is best within a budget, with a reason for each.

    With `keep`, `max_bytes` or `speedup`: the least total damage that keeps them all. With `perplexity` alone: the
    least time where times were measured, otherwise the fewest numbers, at a damage of at most
    ln(1 + perplexity); of equals the least damage. Dense wins ties, and an option that is not faster than dense
    beyond a tie is never chosen for its speed.

    Args:
        options: what every layer could become, in the model's order; the first option of each is dense.
        budget: with `perplexity` beside other limits it is one more of them.
        workloads: that the times are for; kept in the plan.
        dtype, method: of the factors; kept in the plan.
        other_ns: time at the workloads that no choice changes; a speedup needs it.
        fingerprint, device_name: of the machine whose times these are.
        version: of narrows.

    Raises:
        InputError: options or budget lack what they need; NonFiniteError: a damage or time is not finite.
        BudgetError: no choice keeps the budget; `nearest` is the ModelPlan that comes nearest.
        ResourceError: scipy is not installed, or the exact choice is too hard (damages nearly proportional to costs).
    """
    check_options(options)
    check_times(options, budget, other_ns)
    facts = _Facts(budget, tuple(workloads), dtype, method, other_ns, fingerprint, device_name, version)
    only_perplexity = budget.keep is budget.max_bytes is budget.speedup is None
    if only_perplexity:
        return _cheapest(options, facts)
    offers = Offers.of(
        options,
        is_time_only=budget.keep is None and budget.max_bytes is None,
        needs_time=budget.speedup is not None,
    )
    limits = limits_of(offers, budget, other_ns)
    solution = offers.least(offers.damage, limits)
    if solution is None or not _within(offers, solution, budget):
        raise infeasible(offers, budget, limits, facts.plan)
    return _explained(offers, limits, solution, facts)


def _within(offers: Offers, solution: Solution, budget: ModelBudget) -> bool:
    """Return whether the damage is one that the budget's perplexity allows."""
    if budget.perplexity is None:
        return True
    limit = damage_limit(offers, budget.perplexity)
    return offers.sum_of(limit.costs, solution.picks) <= limit.most


def _cheapest(options: Sequence[LayerOptions], facts: _Facts) -> ModelPlan:
    """Return the plan of least time, or of fewest numbers, at the damage that the perplexity allows."""
    assert facts.budget.perplexity is not None
    is_timed = all(layer.options[0].time_ns is not None for layer in options)
    offers = Offers.of(options, is_time_only=is_timed, needs_time=is_timed)
    cost = cost_of(offers, "speedup" if is_timed else "keep")
    cheapest = offers.least(cost.costs, [damage_limit(offers, facts.budget.perplexity)])
    assert cheapest is not None, "dense does no damage"
    limit = cost.at_most(offers.sum_of(cost.costs, cheapest.picks))
    solution = offers.least(offers.damage, [limit])
    assert solution is not None, "the cheapest choice is one"
    return _explained(offers, (limit,), solution, facts)


def _explained(offers: Offers, limits: Sequence[Limit], solution: Solution, facts: _Facts) -> ModelPlan:
    picks = _dense_first(offers, limits, solution.picks)
    return facts.plan(offers, picks, reasons(offers, limits, picks, solution.prices))


def _dense_first(offers: Offers, limits: Sequence[Limit], picks: Places) -> Places:
    """Return the choice with dense wherever that keeps all limits: dense wins ties."""
    found = picks.copy()
    for layer, option in enumerate(offers.options[place] for place in picks):
        together = (
            next((list(stack) for stack in offers.stacks if layer in stack), [layer]) if option.stack else [layer]
        )
        before = found[together]
        found[together] = offers.dense[together]
        if any(offers.sum_of(limit.costs, found) > limit.most for limit in limits):
            found[together] = before
    return found
