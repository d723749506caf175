"""One choice for the whole model carried out on a copy, measured, and trained where that was asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from narrows.errors import InputError
from narrows.models._adopt import own_weights_
from narrows.models._apply import apply_
from narrows.models._check_sides import shared_copy
from narrows.models._recover import recover_, reorder_
from narrows.models._trial import Quality, Speeds, quality, similarity, speeds

if TYPE_CHECKING:
    from torch import nn

    from narrows._values import ModelBudget, ModelPlan
    from narrows._values._check import Estimate
    from narrows.models._compress_job import Job
    from narrows.models._recover import Recovery
    from narrows.models._summary import Summary


@dataclass(frozen=True, eq=False)
class Built:
    """A compressed copy of the model, and what was measured of it so far.

    Attributes:
        model: shares what stayed dense with the dense model.
        recovery: what training did; None: it was not trained.
        is_trained: its weights are those after training (they are not where training made it worse).
    """

    plan: ModelPlan
    model: nn.Module
    summary: Summary
    quality: Quality | None = None
    similarity: Estimate | None = None
    speeds: Speeds | None = None
    recovery: Recovery | None = None
    is_trained: bool = False

    @property
    def is_dense(self) -> bool:
        """Every layer stayed as it was."""
        return is_dense(self.plan)


def is_dense(plan: ModelPlan) -> bool:
    """Return whether a plan leaves every layer dense."""
    return all(one.chosen.form == "dense" for one in plan.layers)


def built(job: Job, plan: ModelPlan) -> Built:
    """Return a compressed copy of the model.

    Raises:
        InputError: a layer could not take what the plan chose.
    """
    copied = shared_copy(job.model)
    summary = apply_(copied, plan, {} if is_dense(plan) else job.parts(plan))
    if summary.refused:
        first = summary.refused[0]
        raise InputError(f"{first.layer} cannot become {first.was} in another form: {first.reason}. Leave it out.")
    return Built(plan, copied, summary)


def with_speeds(job: Job, one: Built) -> Built:
    """Return it with its speed at the workloads, where there are any."""
    if not job.workloads or one.speeds is not None:
        return one
    found = speeds(job.model, one.model, job.workloads, seed=job.recipe.seed, progress=job.progress)
    return replace(one, speeds=found)


def with_quality(job: Job, one: Built) -> Built:
    """Return it with its quality: perplexity, or for an encoder of text the similarity of embeddings."""
    if job.reading.inputs is not None or one.quality is not None or one.similarity is not None:
        return one
    seed, progress = job.recipe.seed, job.progress
    if job.is_causal:
        return replace(one, quality=quality(job.model, one.model, job.reading.selection, seed=seed, progress=progress))
    found = similarity(
        job.model,
        one.model,
        job.reading.parts.selection,
        job.reading.tokenizer,
        tokens=job.recipe.context,
        seed=seed,
        progress=progress,
    )
    return replace(one, similarity=found)


def recovered(job: Job, one: Built, seconds: float) -> Built:
    """Return it trained, with its quality; as it was before where training made that worse."""
    before = with_quality(job, one)
    trained = shared_copy(one.model)
    own_weights_(trained, job.recipe.recovered)
    told = recover_(
        trained,
        job.model,
        job.reading.training,
        seconds=seconds,
        trained=job.recipe.recovered,
        seed=job.recipe.seed,
        autocast=job.autocast,
        progress=job.progress,
    )
    reorder_(trained, job.moments, method=job.recipe.method)
    after = with_quality(job, replace(one, model=trained, recovery=told, is_trained=True, quality=None))
    assert before.quality is not None
    assert after.quality is not None
    return after if after.quality.ratio.value < before.quality.ratio.value else replace(before, recovery=told)


def is_fast_enough(budget: ModelBudget, one: Built) -> bool:
    """Return whether the measured speedup is in the budget, doubt included."""
    return budget.speedup is None or one.speeds is None or one.speeds.overall.low >= budget.speedup


def is_good_enough(budget: ModelBudget, one: Built) -> bool:
    """Return whether the measured growth of perplexity is in the budget, doubt included."""
    return budget.perplexity is None or (one.quality is not None and one.quality.growth <= budget.perplexity)
