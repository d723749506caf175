"""Tiny models with some layers as low-rank pairs, some in pivot form, and the others dense."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import tiny_models
from narrows import factorize
from narrows._values import LayerChoice, LayerOption, ModelBudget, ModelPlan, PivotFactors, Workload
from narrows.models import apply_

MAKERS = (
    tiny_models.llama,
    tiny_models.qwen2,
    tiny_models.gpt2,
    tiny_models.bert,
    tiny_models.gemma3,
    tiny_models.vit,
)
MIXED = ("low-rank", "pivot", "dense")


def weight_of(layer: nn.Module) -> torch.Tensor:
    """Return a layer's weight as (E, D), float32."""
    weight = layer.weight.detach().float()
    return weight.t().contiguous() if isinstance(layer, Conv1D) else weight


def pivot_of(weight_ED: torch.Tensor, rank: int) -> PivotFactors:
    """Return a pivot form of the weight's best approximation, with every other row as a pivot first."""
    E = weight_ED.shape[0]
    best = factorize(weight_ED, rank=rank).dense().double()
    order = torch.cat((torch.arange(1, E, 2), torch.arange(0, E, 2)))
    rows = best[order[:rank]]
    return PivotFactors(rows.float(), (best[order[rank:]] @ torch.linalg.pinv(rows)).float(), order)


def part_of(weight_ED: torch.Tensor, form: str, rank: int) -> Any:
    """Return what stands for a weight, as `apply_` reads it."""
    return factorize(weight_ED, rank=rank) if form == "low-rank" else pivot_of(weight_ED, rank)


def choice_of(name: str, weight_ED: torch.Tensor, form: str, rank: int) -> LayerChoice:
    """Return the plan's line for a layer."""
    E, D = weight_ED.shape
    dense = LayerOption("dense", None, D * E, 4 * D * E, 0.0)
    numbers = rank * (D + E) - (rank * rank if form == "pivot" else 0)
    chosen = dense if form == "dense" else LayerOption(form, rank, numbers, 4 * numbers, 0.01)
    return LayerChoice(name, D, E, chosen, dense, f"chosen as {form}")


def plan_of(choices: list[LayerChoice]) -> ModelPlan:
    """Return a plan of these choices."""
    return ModelPlan(
        tuple(choices),
        ModelBudget(keep=0.9),
        (Workload("prefill", 64),),
        dtype="float32",
        method="two-sided",
        other_ns=None,
        fingerprint="f",
        device_name="a CPU",
        version="0",
    )


def planned(model: nn.Module, forms: tuple[str, ...] = MIXED) -> tuple[ModelPlan, dict[str, Any]]:
    """Return a plan for every linear but the head, its forms in turn and half the rank, and the parts for it."""
    choices, parts, turn = [], {}, cycle(forms)
    for name, layer in model.named_modules():
        if type(layer) not in {nn.Linear, Conv1D} or name == "lm_head":
            continue
        form, weight = next(turn), weight_of(layer)
        rank = min(weight.shape) // 2
        choices.append(choice_of(name, weight, form, rank))
        if form != "dense":
            parts[name] = part_of(weight, form, rank)
    return plan_of(choices), parts


def compressed(model: nn.Module, forms: tuple[str, ...] = MIXED) -> tuple[Any, ModelPlan]:
    """Return the model, compressed in place, and its plan."""
    plan, parts = planned(model, forms)
    apply_(model, plan, parts)
    return model, plan


@torch.no_grad()
def outputs(model: Any) -> torch.Tensor:
    """Return logits, or last hidden states, of one fixed input."""
    generator = torch.Generator().manual_seed(7)
    if "pixel" in model.main_input_name:
        return model(torch.randn(2, 1, 16, 16, generator=generator).to(model.dtype))[0]
    return model(torch.randint(0, 250, (2, 9), generator=generator).to(model.device))[0]
