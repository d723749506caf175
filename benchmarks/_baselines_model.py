"""A model whose block linears take other weights for a while, and what is measured with it.

Letters: N windows, T tokens, D input, E output features.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from narrows.models._match import Target
    from narrows.models._texts import Windows

BATCH = 4  # windows in one forward pass


class Layers:
    """The block linears of a model and their dense weights.

    Attributes:
        targets: the layers.
        shapes: name -> (D, E).
        weights: name -> (E, D), dense, in the model's dtype; views of the model's own where nothing is replaced.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self.targets = targets
        self.shapes = {one.name: (one.in_features, one.out_features) for one in targets}
        self._parameters = {one.name: one.module.weight for one in targets}
        self._is_transposed = {one.name: one.is_transposed for one in targets}
        self.weights = {name: self._oriented(name, weight.data) for name, weight in self._parameters.items()}

    @contextmanager
    def replaced(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Let some layers have other weights (E, D) inside the block."""
        dense = {name: self._parameters[name].data for name in weights}
        try:
            for name, weight in weights.items():
                self._parameters[name].data = self._oriented(name, weight).to(dense[name]).contiguous()
            yield
        finally:
            for name, weight in dense.items():
                self._parameters[name].data = weight

    def _oriented(self, name: str, weight: Tensor) -> Tensor:
        return weight.mT if self._is_transposed[name] else weight


def passes(device: torch.device, autocast: str) -> AbstractContextManager[Any]:
    """Return what forward passes run in: no gradients, and autocast to a dtype unless it is "none"."""
    if autocast == "none":
        return nullcontext()
    return torch.autocast(device.type, getattr(torch, autocast))


@torch.inference_mode()
def mean_absolutes(model: nn.Module, layers: Layers, ids_NT: Tensor, autocast: str) -> dict[str, Tensor]:
    """Return for each layer the mean of |x| over the tokens, (D,) float64."""
    sums = {one.name: torch.zeros(one.in_features, dtype=torch.float64) for one in layers.targets}
    count = 0

    def watch(name: str) -> Any:
        def see(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            sums[name] += given[0].flatten(0, -2).abs().sum(dim=0, dtype=torch.float64).cpu()

        return see

    hooks = [one.module.register_forward_pre_hook(watch(one.name)) for one in layers.targets]
    try:
        device = next(model.parameters()).device
        with passes(device, autocast):
            for ids in ids_NT.split(BATCH):
                model(input_ids=ids.to(device), use_cache=False)
                count += ids.numel()
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / count for name, total in sums.items()}


def losses(model: nn.Module, windows: Windows, autocast: str) -> Tensor:
    """Return the negative log-likelihood of every token but each window's first, (N, T - 1) float64, nats."""
    from narrows.models._perplexity import token_losses

    with torch.inference_mode(), passes(next(model.parameters()).device, autocast):
        return token_losses(model, windows.ids_NT)


def compared(own: Tensor, dense: Tensor, windows: Windows) -> dict[str, Any]:
    """Return perplexity and its ratio to dense's, with the 95 % interval over documents, paired token by token."""
    from narrows.models._check_interval import mean_over_documents

    growth = own - dense
    counts = torch.full((len(growth),), growth.shape[1], dtype=torch.float64)
    found = asdict(mean_over_documents(growth.sum(dim=1).numpy(), counts.numpy(), windows.documents_N.numpy(), seed=0))
    return {
        "perplexity": float(own.mean().exp()),
        "ratio": {end: None if log is None else float(torch.tensor(log).exp()) for end, log in found.items()},
        "windows": len(growth),
        "documents": len(set(windows.documents_N.tolist())),
        "tokens": growth.numel(),
    }
