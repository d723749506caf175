"""What compressing a model's folder will take and can gain at most, from its configuration and headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig

from narrows._cost import estimate, other_flops
from narrows._machine import ceilings, machine
from narrows._values import dtype_name
from narrows._values._foreseen import Foreseen
from narrows.models._compress_checks import check_asked, is_causal
from narrows.models._compress_search import TRIALS
from narrows.models._load import _config, _described
from narrows.models._match import linears
from narrows.models._match_checks import check_model
from narrows.models._plausible import check_plausible, reading
from narrows.models._recipe import Recipe
from narrows.models._times import LAYER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from torch import nn

    from narrows._values import ModelBudget, Workload

DEFAULT = Recipe()
PROBE_SECONDS = 0.5  # for each of the machine's two rates
KEPT = (0.9, 0.8, 0.7, 0.5)


def foreseen(
    source: str | PathLike[str],
    budget: ModelBudget,
    *,
    workloads: Sequence[Workload] = (),
    recipe: Recipe = DEFAULT,
    patterns: Sequence[str] = (),
    device: str = "cpu",
    dtype: str | None = None,
) -> Foreseen:
    """Return what `compress` will take and can gain at most; no weight is read.

    Args:
        source, budget, workloads, recipe, patterns, device, dtype: as for `compress`.

    Raises:
        FileError: the folder is no model, or lacks shards.
        InputError: the model cannot be compressed so.
        DeviceError: the device is not there.
    """
    path = Path(source)
    model = _empty_model(path)
    check_asked(model, budget, workloads, recipe, reads_text=True)
    shapes = [(one.in_features, one.out_features) for one in linears(model, patterns)]
    kind = dtype_name(dtype or model.config.dtype or torch.float32)
    rates = [ceilings(device, name, seconds=PROBE_SECONDS).flops_per_s for name in (kind, "float64")]
    numbers = sum(D * E for D, E in shapes)
    itemsize = getattr(torch, kind).itemsize
    found = estimate(
        shapes,
        tokens=recipe.calibration_tokens,
        itemsize=itemsize,
        parameters=_multiplied(model),
        has_gradients=recipe.method == "two-sided",
        window=recipe.context,
        vocabulary=model.config.get_text_config().vocab_size if is_causal(model) else 0,
        attention_features=_attention_features(model),
        head_numbers=_head_numbers(model),
        anchored_features=_anchored_features(model, shapes) if recipe.is_anchored else 0,
        workloads=workloads,
        kept=_kept(budget, numbers * itemsize),
        flops_per_s=rates[0],
        float64_flops_per_s=rates[1],
    )
    assert found.calibration_seconds is not None
    assert found.decomposition_seconds is not None
    # Anchoring and measuring run both models once.
    passes = 2 * recipe.calibration_tokens * recipe.is_anchored + 2 * recipe.selection_tokens
    return Foreseen(
        layers=len(shapes),
        numbers=numbers,
        tokens=recipe.calibration_tokens,
        timing_seconds=LAYER_SECONDS if workloads else 0.0,
        calibration_seconds=found.calibration_seconds,
        decomposition_seconds=found.decomposition_seconds,
        trials=1 if budget.speedup is None and budget.perplexity is None else TRIALS,
        trial_seconds=found.decomposition_seconds + 2 * _multiplied(model) * passes / rates[0],
        recovery_seconds=recipe.recovery_seconds,
        peak_bytes=found.peak_bytes,
        gains=found.gains,
        needed_kept=_needed_kept(model, budget, workloads, numbers),
        flops_per_s=rates[0],
        float64_flops_per_s=rates[1],
        device_name=machine(device).name,
        dtype=kind,
    )


def _empty_model(path: Path) -> Any:
    """Return the model of a folder without weights, after its headers were read."""
    architecture, _ = _described(path)
    check_plausible(path, architecture, _config(path))
    with reading(path):
        config = AutoConfig.from_pretrained(str(path), trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = architecture(config)
    check_model(model)
    return model


def _multiplied(model: nn.Module) -> int:
    """Return the numbers that each token is multiplied with in calibration: linears, and the head."""
    return sum(one.in_features * one.out_features for one in linears(model)) + _head_numbers(model)


def _head_numbers(model: Any) -> int:
    head = model.get_output_embeddings() if is_causal(model) else None
    return 0 if head is None else int(head.weight.numel())


def _attention_features(model: Any) -> int:
    """Return heads x head size, summed over the blocks; 0 where the configuration does not say."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", 0)
    size = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    return int(getattr(config, "num_hidden_layers", 0) * heads * size)


def _anchored_features(model: Any, shapes: Sequence[tuple[int, int]]) -> int:
    """Return what anchoring holds of each token: both models' hidden states, a block's inputs and its outputs."""
    config = model.config.get_text_config()
    return int(2 * config.hidden_size + sum(D + E for D, E in shapes) // config.num_hidden_layers)


def _kept(budget: ModelBudget, dense_bytes: int) -> tuple[float, ...]:
    """Return the share of the numbers that the budget allows; several where it does not say."""
    shares = [] if budget.keep is None else [budget.keep]
    shares += [] if budget.max_bytes is None else [budget.max_bytes / dense_bytes]
    return (min(1.0, *shares),) if shares else KEPT


def _needed_kept(model: nn.Module, budget: ModelBudget, workloads: Sequence[Workload], numbers: int) -> float | None:
    if budget.speedup is None:
        return None
    layers = sum(one.weight * 2 * one.rows * numbers for one in workloads)
    features, head = _attention_features(model), _head_numbers(model)
    rest = sum(one.weight * other_flops(one, features, head) for one in workloads)
    return ((layers + rest) / budget.speedup - rest) / layers
