"""The two models of a check, and the others that are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from narrows.errors import InputError
from narrows.models._check_sides import int8_copy, naive_copy, reason_of
from narrows.models._match import targets
from narrows.models._match_checks import check_model

if TYPE_CHECKING:
    from narrows._values import ModelPlan
    from narrows._values._check import ModelKind, SideName
    from narrows.models._check_inputs import Opened


@dataclass(frozen=True, eq=False)
class Pair:
    """The two models, what is known of them, and what is derived from both."""

    dense: Opened
    compressed: Opened

    @property
    def device(self) -> torch.device:
        found: torch.device = next(self.dense.model.parameters()).device
        return found

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = next(self.dense.model.parameters()).dtype
        return found

    @property
    def plan(self) -> ModelPlan | None:
        """What the compressed folder's manifest says of every layer; None for a model that was handed over."""
        return None if self.compressed.manifest is None else self.compressed.manifest.plan

    @property
    def kind(self) -> ModelKind:
        """Whether the models foretell the next token, or embed texts."""
        model: Any = self.dense.model
        return "causal" if model.can_generate() else "encoder"

    def check(self) -> None:
        """Raise InputError unless both models read the same text on the same device in the same dtype."""
        dense, compressed = self.dense.model, self.compressed.model
        check_model(dense)
        config: Any = getattr(dense, "config", None)
        if config is None or getattr(dense, "main_input_name", "") != "input_ids" or config.is_encoder_decoder:
            raise InputError(
                f"{type(dense).__name__} is neither a causal language model nor an encoder of text (of transformers): "
                "check has no measure of its quality."
            )
        _check_same(dense, compressed)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the block linears that may have been replaced."""
        if self.plan is not None:
            return tuple(layer.layer for layer in self.plan.layers)
        return tuple(target.name for target in targets(self.dense.model))

    def all_models(self) -> dict[SideName, nn.Module | str]:
        """Return every side's model, or why it is missing."""
        int8 = int8_copy(self.dense.model, self.names)
        return {
            "dense": self.dense.model,
            "narrows": self.compressed.model,
            "int8": int8 if isinstance(int8, str) else _tried(int8),
            "naive": naive_copy(self.compressed.model),
        }


def _check_same(dense: nn.Module, compressed: nn.Module) -> None:
    first, second = next(dense.parameters()), next(compressed.parameters())
    for what, mine, other in (("device", first.device, second.device), ("dtype", first.dtype, second.dtype)):
        if mine != other:
            raise InputError(
                f"the dense model's {what} is {mine}, the compressed one's {other}: their times and losses cannot be "
                f"compared. Give {what}, or load both alike."
            )
    sizes = [getattr(getattr(model, "config", None), "vocab_size", None) for model in (dense, compressed)]
    if type(dense) is not type(compressed) or sizes[0] != sizes[1]:
        raise InputError(
            f"{type(compressed).__name__} with {sizes[1]} words was not made from {type(dense).__name__} with "
            f"{sizes[0]}: give the dense model that was compressed."
        )


@torch.inference_mode()
def _tried(int8: nn.Module) -> nn.Module | str:
    """Return a quantised model that runs, or why it does not: some dtypes and devices show it only now."""
    device = next(int8.parameters()).device
    try:
        int8(input_ids=torch.zeros(1, 8, dtype=torch.int64, device=device))
    except Exception as fault:  # noqa: BLE001 (whatever a foreign package raises is the reason that is shown)
        return f"torchao's int8 weights do not run: {reason_of(fault)}"
    return int8
