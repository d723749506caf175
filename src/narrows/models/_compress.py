"""A model made smaller or faster within a budget, or the reason why not: calibrate, factorise, choose, swap."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from narrows.models._adopt import adopt_
from narrows.models._check_text import documents_sha256
from narrows.models._compress_job import Job
from narrows.models._compress_search import Search
from narrows.models._compress_text import Reading
from narrows.models._match import left_dense
from narrows.models._needs import need_scipy
from narrows.models._recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

    import torch
    from torch import nn

    from narrows._values import ModelBudget, ModelPlan, Workload
    from narrows._values._check import Estimate
    from narrows.models._compress_trial import Built
    from narrows.models._recover import Recovery
    from narrows.models._summary import Summary
    from narrows.models._trial import Quality, Speeds
    from narrows.planning import ModelFrontierPoint

    Progress = Callable[[str, int, int], None] | None

DEFAULT = Recipe()


@dataclass(frozen=True, eq=False)
class Compression:
    """What was done to a model; prints as a table of its layers with what was measured below.

    Attributes:
        plan: what every layer became.
        summary: every layer before and after.
        frontier: choices for the whole model, from dense to the smallest, as predicted.
        quality: measured on text that calibration did not see; None where nothing is foretold, and for a model that
            stayed dense.
        similarity: of an encoder's embeddings with the dense ones, mean cosine; else None.
        speeds: measured at the workloads; None without.
        recovery: what training did; None without.
        left_dense: (name, reason) of every module with weights of its own that could not change.
        notes: what a reader should know.
        certificate: plain JSON of how it was made and what was measured, for `save`.
        is_in_nats: damage is the growth of a loss in nats a token, and foretells perplexity.
    """

    plan: ModelPlan
    summary: Summary
    frontier: tuple[ModelFrontierPoint, ...]
    quality: Quality | None
    similarity: Estimate | None
    speeds: Speeds | None
    recovery: Recovery | None
    left_dense: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    certificate: Mapping[str, Any]
    is_in_nats: bool

    @property
    def is_dense(self) -> bool:
        """Every layer stayed as it was: the answer is to stay dense."""
        return all(one.chosen.form == "dense" for one in self.plan.layers)

    @property
    def not_changed(self) -> tuple[str, ...]:
        """`left_dense` in words: one line for each reason."""
        counts = Counter(reason for _, reason in self.left_dense)
        first = {reason: name for name, reason in reversed(self.left_dense)}
        return tuple(
            f"{first[reason]}: {reason}" if number == 1 else f"{number} modules, as {first[reason]}: {reason}"
            for reason, number in counts.items()
        )

    def __str__(self) -> str:
        measured = []
        if self.quality is not None:
            measured.append(f"perplexity {self.quality.dense:.2f} -> {self.quality.compressed:.2f}")
        if self.similarity is not None:
            measured.append(f"cosine with dense embeddings {self.similarity.value:.4f}")
        if self.speeds is not None:
            measured += [f"{name} {ratio.value:.3f}x" for name, ratio in self.speeds.by_workload.items()]
        lines = [str(self.summary), *([", ".join(measured)] if measured else [])]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def compress_(
    model: nn.Module,
    budget: ModelBudget,
    *,
    documents: Sequence[str] | str | PathLike[str] | None = None,
    tokenizer: Any = None,
    inputs: Sequence[Mapping[str, torch.Tensor]] | None = None,
    workloads: Sequence[Workload] = (),
    recipe: Recipe = DEFAULT,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
    patterns: Sequence[str] = (),
    store: str | PathLike[str] | None = None,
    progress: Progress = None,
) -> Compression:
    """Replace a model's linear layers by smaller ones, in place, so that the budget is met; return what was done.

    Every layer may stay dense or take a rank in one of the forms; the choice that the loss suffers least from, within
    the budget, is found exactly (`narrows.planning.allocate`). What the budget says of perplexity and speed
    is then measured with the whole model, on text that calibration did not see, and the choice is made again where
    the prediction was wrong. The model is changed only if the budget holds; where dense is best it stays as it is.

    Args:
        model: of transformers, dense, on its device.
        budget: what must hold.
        documents: texts, or the path of a .jsonl or .txt file or of a folder of them; a part calibrates, another is
            measured on, a third is left for `check`.
        tokenizer: of the model.
        inputs: in place of documents, for a model that reads no text: its keyword arguments, one mapping for each
            forward pass. They calibrate; nothing is measured.
        workloads: that it is to be fast at, measured on this machine. Without a speedup in the budget they are
            reported, and where perplexity is the only limit time is what is made small.
        recipe: how.
        filter_fn: called as filter_fn(module, name); a layer stays dense where it returns False.
        patterns: names, or "re:" and a regular expression; only these layers may change.
        store: a folder where calibration and times are kept, so that a run that was stopped goes on.
        progress: called with what is done, how much, and of how much.

    Raises:
        BudgetError: no choice meets the budget here; the text and `nearest` (a `Nearest`: plan, frontier and what
            was measured) say how near it comes. The model is as it was.
        InputError, NonFiniteError, ResourceError, FileError: from the steps; the texts name layer and value.
    """
    need_scipy("narrows.compress_")
    reading = Reading.of(documents, tokenizer, inputs, recipe)
    job = Job(model, budget, reading, tuple(workloads), recipe, filter_fn, tuple(patterns), store, progress)
    return carried_out(job)


def carried_out(job: Job) -> Compression:
    """Return what was done to the job's model."""
    job.check()
    with job.evaluating():
        found = Search(job).run()
    untouched = left_dense(job.model)
    if not found.is_dense:
        adopt_(job.model, found)
    notes = (*job.short_of_tokens, *_notes(job, found))
    return Compression(
        plan=replace(found.plan, budget=job.budget),
        summary=found.summary,
        frontier=job.frontier,
        quality=found.quality,
        similarity=found.similarity,
        speeds=found.speeds,
        recovery=found.recovery,
        left_dense=untouched,
        notes=notes,
        certificate=_certificate(job, found, notes),
        is_in_nats=job.is_in_nats,
    )


def _notes(job: Job, found: Built) -> tuple[str, ...]:
    """Return what a reader should know of how this was judged."""
    notes = []
    if job.recipe.method == "one-sided":
        notes.append(
            "method one-sided: damage is the share of each layer's output that is lost, summed over layers; it is not "
            "in nats, and foretells no perplexity."
        )
    elif not job.gives_scores:
        notes.append(
            f"{type(job.model).__name__} gives no scores: damage is half the share of the final states' variance that "
            "is lost, not nats, and foretells no perplexity."
        )
    if job.is_causal and not found.is_dense:
        notes += job.reading.notes()
    if found.recovery is not None and not found.is_trained:
        notes.append(
            "recovery made it worse on the text that the choice is measured on: the weights from before are kept. "
            "Give it more time, or more text."
        )
    return tuple(notes)


def _certificate(job: Job, found: Built, notes: tuple[str, ...]) -> dict[str, Any]:
    """Return what a manifest keeps of how the model was made and what was measured of it."""
    texts = None
    if job.reading.inputs is None:
        path = None if job.reading.path is None else str(job.reading.path)
        texts = {"path": path, "sha256": documents_sha256(job.reading.documents), "seed": job.recipe.seed}
    speeds = None
    if found.speeds is not None:
        both = {**found.speeds.by_workload, "overall": found.speeds.overall}
        speeds = {name: asdict(ratio) for name, ratio in both.items()}
    return {
        "texts": texts,
        "recipe": asdict(job.recipe),
        "quality": None if found.quality is None else asdict(found.quality),
        "similarity": None if found.similarity is None else asdict(found.similarity),
        "speeds": speeds,
        "recovery": None if found.recovery is None else asdict(found.recovery),
        "notes": list(notes),
    }
