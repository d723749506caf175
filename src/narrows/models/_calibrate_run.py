"""One reading of the calibration text: forward, backward, sums, and what is kept on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from narrows.errors import InputError
from narrows.models._calibrate_forward import forward, quiet_model
from narrows.models._calibrate_labels import class_gradient, noise_gradient, output_tensor
from narrows.models._calibrate_watch import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from narrows.models._calibrate_batches import Batch
    from narrows.models._calibrate_sums import Sums
    from narrows.models._match import Target
    from narrows.models._moments_store import MomentsStore

Progress = Callable[[str, int, int], None]
SAVE_SECONDS, SAVE_SHARE = 60.0, 0.05  # at most so often, and at most this share of the time goes into it


@dataclass(frozen=True, eq=False)
class Run:
    """Calls to one model on one text.

    Attributes:
        passes: how many readings there are in all, for the progress.
    """

    model: nn.Module
    text: tuple[Batch, ...]
    seed: int
    autocast: torch.dtype | None
    progress: Progress | None
    passes: int

    def __call__(
        self, sums: Sums, targets: Sequence[Target], kept: MomentsStore | None = None, number: int = 0
    ) -> Sums:
        """Return the sums of all batches for some layers, going on from what the store keeps of this pass."""
        done = _restored(sums, kept, number)
        watch = Watch(targets, sums)
        saved, pause = time.monotonic(), SAVE_SECONDS
        self._say(done, number)
        with quiet_model(self.model), watch.attached():
            for i, batch in enumerate(self.text[done:], start=done + 1):
                watch.batch = batch
                self._read(batch, sums)
                self._say(i, number)
                began = time.monotonic()
                if kept is not None and (i == len(self.text) or began - saved >= pause):
                    kept.save(number, i, sums.tensors(), sums.counts())
                    saved = time.monotonic()
                    pause = max(SAVE_SECONDS, (saved - began) / SAVE_SHARE)
        return sums

    def wait(self) -> None:
        """Tell that another run calibrates in the same store."""
        if self.progress is not None:
            self.progress("waiting for another run that calibrates with this store", 0, 1)

    def _read(self, batch: Batch, sums: Sums) -> None:
        device = next(self.model.parameters()).device
        with torch.set_grad_enabled(bool(sums.gradients)):
            with torch.autocast(device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None):
                output = forward(self.model, batch.inputs)
            if sums.gradients:
                self._go_back(*output_tensor(output), batch, sums)

    def _go_back(self, output: torch.Tensor, is_classes: bool, batch: Batch, sums: Sums) -> None:
        if not output.requires_grad:
            raise InputError("no target reaches the model's output: gradients are not known there.")
        make = class_gradient if is_classes else noise_gradient
        gradient = make(output, batch.indices, self.seed)
        rows = output.detach().reshape(-1, output.shape[-1])
        if batch.mask is not None and output.ndim > 2 and batch.mask.shape == output.shape[:2]:
            mask_BT = batch.mask.to(output.device)
            gradient[~mask_BT] = 0
            rows = output.detach()[mask_BT]
        if not is_classes:
            sums.add_hidden(rows)
        sums.positions += batch.tokens if is_classes and output.ndim == 2 else len(rows)
        # The dtypes of the forward pass decide: an autocast that the caller is in would round the products here too.
        with torch.autocast(output.device.type, enabled=False):
            torch.autograd.backward(output, gradient)

    def _say(self, done: int, number: int) -> None:
        if self.progress is None:
            return
        unit = (
            "tokens"
            if isinstance(self.text[0].inputs, torch.Tensor) or "input_ids" in self.text[0].inputs
            else "windows"
        )
        which = f", pass {number + 1} of {self.passes}" if self.passes > 1 else ""
        counts = [one.tokens for one in self.text]
        self.progress(f"calibration {unit}{which}", sum(counts[:done]), sum(counts))


def _restored(sums: Sums, kept: MomentsStore | None, number: int) -> int:
    """Return how many batches the store had summed already, and take those sums over."""
    found: Any = None if kept is None else kept.counts(number)
    if kept is None or found is None:
        return 0
    done, counts = found
    sums.restore(((name, kept.tensor(number, name)) for name in kept.names(number)), counts)
    return int(done)
