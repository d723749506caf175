"""Compressed tiny models and their folders, for the tests of `check`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import tiny_models
from narrows._values import LayerChoice, LayerOption, ModelBudget, ModelPlan, Workload
from narrows.decompose import factorize
from narrows.models import apply_, save
from narrows.models._check_sides import shared_copy
from narrows.models._check_text import documents_sha256
from narrows.models._match import targets

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = 4  # bytes
WORKLOAD = Workload("prefill", 32)
BUDGET = ModelBudget(perplexity=0.5, keep=0.95)


def plan_of(model: Any, rank: int, budget: ModelBudget = BUDGET) -> ModelPlan:
    """Return a plan that gives every layer whose name holds "gate" or "intermediate" a rank."""
    layers = []
    for one in targets(model):
        D, E = one.in_features, one.out_features
        dense = LayerOption("dense", None, D * E, D * E * FLOAT, 0.0)
        thin = LayerOption("low-rank", rank, rank * (D + E), rank * (D + E) * FLOAT, 0.1)
        chosen = thin if "gate" in one.name or "intermediate" in one.name else dense
        layers.append(LayerChoice(one.name, D, E, chosen, dense, "for a test"))
    return ModelPlan(tuple(layers), budget, (WORKLOAD,), "float32", "plain", None, "here", "this CPU", "0.1.0")


def compressed(model: Any, rank: int = 4) -> Any:
    """Return the model with factors of a rank in place of some layers; the others' tensors are shared."""
    plan, made = plan_of(model, rank), shared_copy(model)
    thin = [layer.layer for layer in plan.layers if layer.chosen.rank is not None]
    apply_(made, plan, {name: factorize(model.get_submodule(name).weight.detach(), rank=rank) for name in thin})
    return made


def folders(path: Path, budget: ModelBudget = BUDGET, *, rank: int = 4) -> tuple[Path, Path, Path]:
    """Return the folders of a compressed and of its dense Llama, and the text that the manifest names."""
    model, documents = tiny_models.llama(), tiny_models.texts(60)
    text = path / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": document}) for document in documents), encoding="utf-8")
    known = {"sha256": documents_sha256(documents), "path": str(text), "seed": 0}
    dense = tiny_models.folder(model, path / "dense")
    out = save(
        compressed(model, rank),
        path / "out",
        plan=plan_of(model, rank, budget),
        certificate={"texts": known},
        source=str(dense),
        tokenizer=tiny_models.tokenizer(),
    )
    return out, dense, text
