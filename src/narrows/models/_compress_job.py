"""One compression: what was asked, and what is found out of the model on the way, each once.

Letters: N windows, T tokens a window.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import torch

from narrows import __version__
from narrows._machine import machine
from narrows.decompose import weighted, weighted_stack
from narrows.models._anchor import anchored_parts
from narrows.models._calibrate import calibrate, short_of_tokens
from narrows.models._calibrate_forward import forward, quiet_model
from narrows.models._calibrate_labels import output_tensor
from narrows.models._compress_checks import check_asked, check_replaceable, is_causal
from narrows.models._match import targets as match_targets
from narrows.models._options import layer_options
from narrows.models._stacks import Stack, stacks
from narrows.models._times import Times
from narrows.planning import allocate, model_frontier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from os import PathLike

    from torch import nn

    from narrows._values import (
        Factors,
        LayerOptions,
        Machine,
        ModelBudget,
        ModelPlan,
        Moments,
        PivotFactors,
        Workload,
    )
    from narrows.decompose import Weighted
    from narrows.models._compress_text import Reading
    from narrows.models._match import Target
    from narrows.models._recipe import Recipe
    from narrows.planning import CostName, ModelFrontierPoint

    Progress = Callable[[str, int, int], None] | None
    Parts = Mapping[str, Factors | PivotFactors]

Item = TypeVar("Item")
MOMENTS_SHARE = 4  # of the device's memory, at most a quarter holds moments at a time; the rest waits in the store


@dataclass(frozen=True, eq=False)
class Job:
    """One call of `compress_`, with its arguments; each step is made when it is first asked for.

    Attributes:
        tokens: that each layer's moments are over, as far as they were looked at.
    """

    model: nn.Module
    budget: ModelBudget
    reading: Reading
    workloads: tuple[Workload, ...]
    recipe: Recipe
    filter_fn: Callable[[nn.Module, str], bool] | None = None
    patterns: tuple[str, ...] = ()
    store: str | PathLike[str] | None = None
    progress: Progress = None
    tokens: dict[str, int] = field(default_factory=dict, init=False)

    def check(self) -> None:
        """Raise where the job cannot be done as it was asked for; nothing long has run by then."""
        reads_text = self.reading.inputs is None
        check_asked(self.model, self.budget, self.workloads, self.recipe, reads_text=reads_text)
        self.reading.check(self.model)
        if self.is_causal:
            _ = self.reading.selection
        check_replaceable(self.targets)

    @cached_property
    def is_causal(self) -> bool:
        """The model foretells tokens of the text, so perplexity is measured."""
        return self.reading.inputs is None and is_causal(self.model)

    @property
    def is_in_nats(self) -> bool:
        """Damage is the growth of a cross entropy."""
        return self.gives_scores and self.recipe.method == "two-sided"

    @cached_property
    def gives_scores(self) -> bool:
        """The model gives scores of classes or tokens, not only hidden states."""
        with torch.no_grad(), quiet_model(self.model):
            return output_tensor(forward(self.model, self.reading.first))[1]

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """The layers that may change."""
        return match_targets(self.model, self.filter_fn, self.patterns, window=self.reading.first)

    @cached_property
    def stacks(self) -> tuple[Stack, ...]:
        """Layers that may share a projection."""
        return stacks(self.model, self.targets) if self.recipe.is_sharing else ()

    @cached_property
    def autocast(self) -> torch.dtype | None:
        """The dtype of calibration's and recovery's passes."""
        name = self.recipe.autocast
        return None if name is None else getattr(torch, name)

    @cached_property
    def moments(self) -> Mapping[str, Moments]:
        """What calibration tells of each layer."""
        return calibrate(
            self.model,
            self.reading.calibration,
            self.targets,
            seed=self.recipe.seed,
            gradients=self.recipe.method == "two-sided",
            store=self.store,
            max_bytes=None if self.store is None else self.machine.memory_bytes // MOMENTS_SHARE,
            autocast=self.autocast,
            progress=self.progress,
        )

    @cached_property
    def options(self) -> tuple[LayerOptions, ...]:
        """What every layer could become."""
        times = self.times  # first: they do not need the moments in memory
        whole = [*(Stack(one.name, (one,)) for one in self.targets), *self.stacks]
        damages = {one.name: self._damages(one) for one in self._told("decomposing", whole)}
        return layer_options(self.targets, damages, forms=self.recipe.own_forms, times=times, stacks=self.stacks)

    @cached_property
    def short_of_tokens(self) -> tuple[str, ...]:
        """A sentence for each size of input that fewer tokens were read for than it has features."""
        _ = self.options  # has looked at every layer's moments; those of a large model are on the disk
        counts = {name: _Count(tokens) for name, tokens in self.tokens.items()}
        return short_of_tokens(self.targets, cast("Mapping[str, Moments]", counts))

    @cached_property
    def times(self) -> Times | None:
        """Measured times of the layers' forms at the workloads; None where time does not matter."""
        if not self.workloads:
            return None
        return Times.measured(
            self.model,
            self.targets,
            self.workloads,
            seed=self.recipe.seed,
            store=self.store,
            progress=self.progress,
            stacks=self.stacks,
        )

    @cached_property
    def frontier(self) -> tuple[ModelFrontierPoint, ...]:
        """Choices for the whole model, from dense to the smallest, as predicted."""
        cost: CostName = "numbers" if self.times is None else "time"
        return model_frontier(self.options, cost=cost, other_ns=self._other_ns)

    @cached_property
    def machine(self) -> Machine:
        """Where the model is."""
        return machine(str(next(self.model.parameters()).device))

    def plan(self, budget: ModelBudget) -> ModelPlan:
        """Return the best choice within a budget, as predicted.

        Raises:
            BudgetError: none is.
        """
        return allocate(
            self.options,
            budget,
            workloads=self.workloads,
            dtype=str(next(self.model.parameters()).dtype).removeprefix("torch."),
            method=self.recipe.method,
            other_ns=self._other_ns,
            fingerprint=self.machine.fingerprint,
            device_name=self.machine.name,
            version=__version__,
        )

    def parts(self, plan: ModelPlan) -> Parts:
        """Return the factors of every layer that a plan makes smaller."""
        if self.recipe.is_anchored:
            return anchored_parts(
                self.model,
                plan,
                self.targets,
                self.moments,
                self.reading.calibration,
                autocast=self.autocast,
                progress=self.progress,
            )
        by_name = {target.name: target for target in self.targets}
        thin = [one for one in plan.layers if one.chosen.rank is not None and one.layer == one.together[0]]
        found: dict[str, Factors | PivotFactors] = {}
        for one in self._told("factorising", thin):
            made, rank = self._decomposed([by_name[name] for name in one.together]), one.chosen.rank
            assert rank is not None
            found[one.layer] = made.pivot(rank) if one.chosen.form == "pivot" else made.factors(rank)
        return found

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Keep the model in evaluation mode for the block: dropout would be part of every figure."""
        modes = {module: module.training for module in self.model.modules()}
        try:
            self.model.eval()
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode

    @property
    def _other_ns(self) -> float | None:
        return None if self.times is None else self.times.other_ns

    def _damages(self, stack: Stack) -> Sequence[float]:
        """Return the damage of every rank: nats a token, or without gradients the share of its output that is lost.

        Of a layer by itself, or of several with one projection: then the sum over them.
        """
        made = self._decomposed(stack.members)
        whole = 1.0 if made.is_in_nats else float(made.damages[0]) / len(stack.members) or 1.0
        return [float(damage) / whole for damage in made.damages]

    def _decomposed(self, members: Sequence[Target]) -> Weighted:
        """Return every rank of a layer, or of several as one."""
        weights, found = [_weight(one) for one in members], [self.moments[one.name] for one in members]
        self.tokens.update((one.name, moments.tokens) for one, moments in zip(members, found, strict=True))
        if len(members) == 1:
            return weighted(weights[0], found[0], method=self.recipe.method)
        return weighted_stack(weights, found, method=self.recipe.method)

    def _told(self, what: str, items: Sequence[Item]) -> Iterator[Item]:
        """Yield items, and tell how many are done."""
        for done, one in enumerate(items):
            if self.progress is not None:
                self.progress(what, done, len(items))
            yield one
        if self.progress is not None:
            self.progress(what, len(items), len(items))


def _weight(target: Target) -> torch.Tensor:
    weight: torch.Tensor = target.module.weight  # type: ignore[assignment]
    return weight.T if target.is_transposed else weight


class _Count(NamedTuple):
    """What `short_of_tokens` reads of moments."""

    tokens: int
