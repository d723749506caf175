"""The choice that meets a budget by measurement: predicted, built, measured, and asked for again where that differs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from narrows.errors import BudgetError
from narrows.models._compress_trial import (
    Built,
    built,
    is_dense,
    is_fast_enough,
    is_good_enough,
    recovered,
    with_quality,
    with_speeds,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows._values import ModelBudget, ModelPlan
    from narrows.models._compress_job import Job
    from narrows.models._trial import Quality, Speeds
    from narrows.planning import ModelFrontierPoint

TRIALS = 4  # whole models that are built and measured for one budget
CLOSE, AIM, SAFE_AIM = (
    0.8,
    0.95,
    0.6,
)  # of the allowed growth of log perplexity: near enough, the next trial's, the last's
MOST_UP, MOST_DOWN = 4.0, 64.0  # factors by which one trial changes the predicted damage
STEEPEST = 3.0  # power of the predicted damage with which the measured one may grow, and its inverse
ROOM, MARGIN = 1.05, 1.01  # of the speedup: near enough, and what the next trial aims at


@dataclass(frozen=True, eq=False)
class Nearest:
    """What comes nearest to a budget that nothing meets, with the frontier; in `BudgetError.nearest`.

    Attributes:
        quality, speeds: measured; None where the plan was not built.
        is_in_nats: damage is the growth of a loss in nats a token.
    """

    plan: ModelPlan
    frontier: tuple[ModelFrontierPoint, ...]
    quality: Quality | None = None
    speeds: Speeds | None = None
    is_in_nats: bool = True


@dataclass(eq=False)
class Search:
    """Trials for one budget.

    Attributes:
        held: the best that was measured to be within the budget.
        missed: those that were not, without their models.
        reached: (predicted damage, measured growth of log perplexity) of every trial.
    """

    job: Job
    held: Built | None = None
    missed: list[Nearest] = field(default_factory=list)
    reached: list[tuple[float, float]] = field(default_factory=list)

    def run(self) -> Built:
        """Return the best choice that holds by measurement.

        Raises:
            BudgetError: none does; `nearest` is a `Nearest`.
        """
        plan = self._first_plan()
        seen, last = [plan], plan
        while not is_dense(plan):
            asked = self._next(plan.budget, self._tried(plan))
            found = None if asked is None or len(seen) == TRIALS else self._stricter(asked)
            if found is None or any(found.layers == one.layers for one in seen):
                break
            plan = last = found
            seen.append(found)
        return self._finished(self.held or self._dense(last))

    @property
    def _is_perplexity_only(self) -> bool:
        budget = self.job.budget
        return budget.keep is None and budget.speedup is None and budget.max_bytes is None

    def _first_plan(self) -> ModelPlan:
        """Return the predicted best; beside another limit that is the least damage, and perplexity is then measured."""
        budget = self.job.budget
        try:
            return self.job.plan(budget if self._is_perplexity_only else replace(budget, perplexity=None))
        except BudgetError as fault:
            nearest = cast("ModelPlan", fault.nearest)
            known = Nearest(nearest, self.job.frontier, is_in_nats=self.job.is_in_nats)
            raise BudgetError(str(fault), known) from None

    def _stricter(self, asked: ModelBudget) -> ModelPlan | None:
        try:
            return self.job.plan(asked)
        except BudgetError:
            return None

    def _tried(self, plan: ModelPlan) -> Built:
        """Return a plan's model, measured as far as the budget needs it, and remember it."""
        job, budget = self.job, self.job.budget
        one = with_speeds(job, built(job, plan))
        if budget.perplexity is not None and is_fast_enough(budget, one):
            seconds = self._seconds_of_a_trial()
            one = recovered(job, one, seconds) if seconds else with_quality(job, one)
        if not (is_fast_enough(budget, one) and is_good_enough(budget, one)):
            self.missed.append(Nearest(plan, (), one.quality, one.speeds))
        elif self.held is None or self._cost(plan) < self._cost(self.held.plan):
            self.held = one
        return one

    def _seconds_of_a_trial(self) -> float:
        """Return the share of the time for recovery, where a budget on perplexity is judged after it."""
        is_one_trial = not self._is_perplexity_only and self.job.budget.speedup is None
        return self.job.recipe.recovery_seconds / (1 if is_one_trial else TRIALS)

    def _cost(self, plan: ModelPlan) -> float:
        """Return what is to be small: damage; with perplexity as the only limit, time or else numbers."""
        if not self._is_perplexity_only:
            return plan.damage
        return plan.kept if plan.speedup is None else 1 / plan.speedup

    def _next(self, asked: ModelBudget, one: Built) -> ModelBudget | None:
        """Return what to ask of the prediction so that the measurement comes out as wanted; None: it does."""
        if self._is_perplexity_only:
            return self._other_perplexity(asked, one)
        wanted = self.job.budget.speedup
        if wanted is None or asked.speedup is None or one.speeds is None:
            return None
        reached = one.speeds.overall.low
        if wanted <= reached <= ROOM * wanted:
            return None
        return replace(asked, speedup=asked.speedup * MARGIN * wanted / reached)

    def _other_perplexity(self, asked: ModelBudget, one: Built) -> ModelBudget | None:
        """Return the damage to allow next, by the power law through what the last two trials predicted and measured."""
        assert self.job.budget.perplexity is not None
        assert one.quality is not None
        wanted, reached = math.log1p(self.job.budget.perplexity), math.log1p(max(one.quality.growth, 0.0))
        self.reached.append((one.plan.damage, max(reached, math.ulp(1.0))))
        if CLOSE * wanted <= reached <= wanted or not wanted:
            return None
        is_last_chance = self.held is None and len(self.reached) == TRIALS - 1
        damage = _next_damage(self.reached, (SAFE_AIM if is_last_chance else AIM) * wanted)
        return replace(asked, perplexity=math.expm1(damage))

    def _dense(self, plan: ModelPlan) -> Built:
        """Return the model as it is, where that is within the budget."""
        budget = self.job.budget
        is_fast = budget.speedup is None or budget.speedup <= 1
        is_small = budget.keep is None or budget.keep == 1
        is_light = budget.max_bytes is None or sum(one.dense.bytes for one in plan.layers) <= budget.max_bytes
        if not (is_fast and is_small and is_light):
            raise self._not_met()
        if self.missed:
            reason = f"Dense: of {len(self.missed)} smaller models that were built and measured none is in the budget."
            plan = replace(plan, layers=tuple(replace(one, chosen=one.dense, reason=reason) for one in plan.layers))
        return built(self.job, plan)

    def _finished(self, one: Built) -> Built:
        """Return it with everything measured, and trained where that was asked for and not done yet."""
        job = self.job
        if one.is_dense:
            return one
        if job.recipe.recovery_seconds and job.budget.perplexity is None:
            return recovered(job, one, job.recipe.recovery_seconds)
        return with_quality(job, one)

    def _not_met(self) -> BudgetError:
        """Return the answer no, with what came nearest."""
        nearest = min(self.missed, key=lambda one: (self._is_half_measured(one), self._shortfall(one)))
        number = len(self.missed)
        which = "the one" if number == 1 else f"the nearest of {number}"
        text = (
            f"no choice that was built and measured here meets the budget. Of {which}, which keeps "
            f"{nearest.plan.kept:.1%} of the numbers: {'; '.join(self._figures(nearest))}."
        )
        return BudgetError(text, replace(nearest, frontier=self.job.frontier, is_in_nats=self.job.is_in_nats))

    def _figures(self, one: Nearest) -> list[str]:
        budget, found = self.job.budget, []
        if budget.perplexity is not None and one.quality is not None:
            end = "" if one.quality.ratio.high is None else " (upper end)"
            grew = f"perplexity grew by {one.quality.growth:.2%}{end}"
            found.append(f"{grew}, {budget.perplexity:.2%} is allowed")
        if budget.speedup is not None and one.speeds is not None:
            found.append(f"speedup is {one.speeds.overall.low:.3f} (lower end), {budget.speedup:g} is asked for")
        return found

    def _is_half_measured(self, one: Nearest) -> bool:
        """Return whether a part of the budget is not known of it: it was too slow to be judged."""
        return self.job.budget.perplexity is not None and one.quality is None

    def _shortfall(self, one: Nearest) -> float:
        """Return by how much the worst part of the budget is missed, as a difference of logarithms."""
        budget, short = self.job.budget, [0.0]
        if budget.perplexity is not None and one.quality is not None:
            short.append(math.log1p(one.quality.growth) - math.log1p(budget.perplexity))
        if budget.speedup is not None and one.speeds is not None:
            short.append(math.log(budget.speedup / one.speeds.overall.low))
        return max(short)


def _next_damage(reached: Sequence[tuple[float, float]], target: float) -> float:
    """Return the predicted damage at which the measured one should be `target`."""
    damage, found = reached[-1]
    power = 1.0
    if len(reached) > 1 and reached[-2][0] != damage:
        before, found_before = reached[-2]
        power = math.log(found / found_before) / math.log(damage / before)
    factor = (target / found) ** (1 / min(max(power, 1 / STEEPEST), STEEPEST))
    return damage * float(min(max(factor, 1 / MOST_DOWN), MOST_UP))
