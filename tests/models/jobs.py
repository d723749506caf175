"""Small compressions, for the tests of what they are made of."""

from __future__ import annotations

from typing import Any

import torch

import tiny_models
from narrows import ModelBudget, Recipe
from narrows.models._apply import apply_
from narrows.models._check_sides import shared_copy
from narrows.models._compress_job import Job
from narrows.models._compress_text import Reading
from narrows.models._perplexity import paired_losses
from narrows.models._recipe import FORMS

QUICK = {"context": 64, "calibration_tokens": 2048, "selection_tokens": 1024, "forms": FORMS}


def job(model: Any, keep: float = 0.7, **changes: Any) -> Job:
    """Return a compression of a model on tiny texts, with nothing done yet."""
    recipe = Recipe(**(QUICK | changes))
    reading = Reading.of(tiny_models.texts(40, 200), tiny_models.tokenizer(), None, recipe)
    return Job(model, ModelBudget(keep=keep), reading, (), recipe)


def with_parts(one: Job, plan: Any, parts: Any) -> Any:
    """Return a copy of the job's model with these parts in it."""
    made = shared_copy(one.model)
    apply_(made, plan, parts)
    return made


@torch.no_grad()
def loss_of(dense: Any, made: Any, ids_NT: torch.Tensor) -> float:
    """Return how far the outputs are apart: KL in nats a token, or of an encoder the mean squared difference."""
    if dense.can_generate():
        _, found = paired_losses(dense, {"made": made}, ids_NT)
        return float(found["made"].divergence.mean())
    wanted, given = (model(input_ids=ids_NT).last_hidden_state for model in (dense, made))
    return float((wanted - given).square().mean())
