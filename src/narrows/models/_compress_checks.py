"""What cannot be compressed as it was asked for: refused before any long work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from narrows.errors import InputError
from narrows.models._speed import check_workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from narrows._values import ModelBudget, Workload
    from narrows.models._match import Target
    from narrows.models._recipe import Recipe


def is_causal(model: nn.Module) -> bool:
    """Return whether a model foretells the next token, so that its perplexity is known."""
    can_generate: Any = getattr(model, "can_generate", None)
    return callable(can_generate) and bool(can_generate())


def check_asked(
    model: nn.Module, budget: ModelBudget, workloads: Sequence[Workload], recipe: Recipe, *, reads_text: bool
) -> None:
    """Raise InputError where the budget or the recipe asks for what this model does not have.

    Args:
        model: dense.
        budget: perplexity needs a causal model and text; a speedup needs workloads.
        workloads: each must fit the model.
        recipe: recovery needs what perplexity needs.
        reads_text: documents are given.
    """
    kind = type(model).__name__
    check_speedup(budget, workloads)
    if reads_text:
        check_reads_text(model)
    if workloads and not reads_text:
        raise InputError("workloads are requests of text: with inputs, give keep or max_bytes as the budget.")
    for one in workloads:
        check_workload(model, one)
    foretells = reads_text and is_causal(model)
    if budget.perplexity is not None and not foretells:
        asked = f"perplexity={budget.perplexity:g}"
        raise InputError(f"{asked} needs a model that foretells tokens of text; {kind} does not.")
    if recipe.recovery_seconds and not foretells:
        raise InputError(f"recovery needs a model that foretells tokens of text; {kind} does not.")
    if budget.perplexity is not None and recipe.method == "one-sided":
        raise InputError(
            f"perplexity={budget.perplexity:g} needs method='two-sided': what 'one-sided' loses is a share of each "
            "layer's output, which says nothing of perplexity."
        )


def check_speedup(budget: ModelBudget, workloads: Sequence[Workload]) -> None:
    """Raise InputError where a speedup is asked for at no workload."""
    if budget.speedup is not None and not workloads:
        raise InputError(f"speedup={budget.speedup:g} needs a workload to be fast at, as prefill:2048x1.")


def check_replaceable(targets: Sequence[Target]) -> None:
    """Raise InputError where a layer has hooks, or a forward of its own, that a replacement would lose."""
    for one in targets:
        module = one.module
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or "forward" in vars(module):  # noqa: SLF001
            raise InputError(
                f"{one.name} has hooks or a forward of its own, which would be lost: remove them, or leave the layer "
                "out with filter_fn. (Models that accelerate spread over devices have them: load onto one device.)"
            )


def check_reads_text(model: nn.Module) -> None:
    """Raise InputError where a model does not read token ids of one text."""
    config: Any = getattr(model, "config", None)
    name = getattr(model, "main_input_name", "input_ids")
    if name != "input_ids" or getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"{type(model).__name__} does not read plain text: from Python, give its keyword arguments as inputs."
        )
