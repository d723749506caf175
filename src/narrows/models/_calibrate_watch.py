"""Hooks that add what passes through layers to the sums.

Letters: B windows, T tokens, D input, E output features.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from narrows.errors import NonFiniteError
from narrows.models._calibrate_forward import exact_products

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from narrows.models._calibrate_batches import Batch
    from narrows.models._calibrate_sums import Sums
    from narrows.models._match import Target

# A token's gradient is shortened to this many times the median length of its window.
CLIP = 10.0


class Watch:
    """Adds inputs and output gradients of layers to sums, one batch at a time.

    Attributes:
        batch: what is being run; set before every forward pass.
    """

    def __init__(self, targets: Sequence[Target], sums: Sums) -> None:
        self._targets = targets
        self._sums = sums
        self.batch: Batch | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Keep hooks on the layers for as long as the block runs."""
        handles = []
        try:
            for one in self._targets:
                if one.name in self._sums.inputs:
                    reads = self._reads(one.name)
                    handles.append(one.module.register_forward_pre_hook(reads, with_kwargs=True))
                if one.name in self._sums.gradients:
                    handles.append(one.module.register_forward_hook(self._writes(one.name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _reads(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            with exact_products(x.device):
                windows = self._windows(x)
                x_TD = torch.cat(windows)
                total_D = x_TD.sum(dim=0)
                if not total_D.isfinite().all():
                    raise NonFiniteError(self._place("what enters", name, windows))
                self._sums.add_inputs(name, x_TD, total_D)

        return hook

    def _writes(self, name: str) -> Callable[..., torch.Tensor]:
        def hook(_: nn.Module, __: tuple[Any, ...], y: torch.Tensor) -> torch.Tensor:
            if not y.requires_grad:
                with torch.enable_grad():
                    # The graph begins here. Cloned, because what follows may change y in place, which a leaf forbids.
                    y = y.detach().requires_grad_().clone()
            y.register_hook(lambda gradient: self._add_gradient(name, gradient))  # type: ignore[no-untyped-call]
            return y

        return hook

    def _add_gradient(self, name: str, gradient: torch.Tensor) -> None:
        with exact_products(gradient.device):
            windows = self._windows(gradient)
            clipped = [clip(one) for one in windows]
            g_TE = torch.cat(clipped)
            if not g_TE.sum().isfinite():
                raise NonFiniteError(self._place("the gradient at what leaves", name, windows))
            self._sums.gradients[name].add(g_TE)

    def _windows(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return float64 rows of each window, without padding; one item where rows are not laid out by windows."""
        batch, size = self.batch, x.shape[-1]
        assert batch is not None
        B, mask_BT = batch.windows, batch.mask
        exact = x.detach().to(torch.float64)
        is_flat = x.ndim == 2 and mask_BT is not None and len(x) == mask_BT.numel()
        if not is_flat and (x.ndim < 3 or len(x) != B):
            return [exact.reshape(-1, size)]
        rows = list(exact.reshape(B, -1, size))
        if mask_BT is None or mask_BT.shape[1] != len(rows[0]):
            return rows
        return [one[keep] for one, keep in zip(rows, mask_BT.to(x.device), strict=True)]

    def _place(self, what: str, name: str, windows: Sequence[torch.Tensor]) -> str:
        """Return the error text for the first row that is not finite."""
        assert self.batch is not None
        bad = [(b, int(t)) for b, rows in enumerate(windows) for t in (~rows.isfinite().all(dim=1)).nonzero()]
        b, t = bad[0] if bad else (0, 0)
        return (
            f"{what} {name} holds NaN or Inf in window {self.batch.first + b} at token {t}: calibrate in a dtype with "
            "a larger range, or repair the model."
        )


def clip(g_TE: torch.Tensor) -> torch.Tensor:
    """Return token gradients (T, E), none longer than 10 times the median of those that are not zero.

    A few tokens would else decide the average alone. Tokens without any gradient say nothing of the
    usual length: after the last attention of a classifier all but one have none.
    """
    norm_T = torch.linalg.vector_norm(g_TE, dim=1)
    moving = norm_T[norm_T > 0]
    if not len(moving):
        return g_TE
    clipped: torch.Tensor = g_TE * (CLIP * moving.median() / norm_T).clamp(max=1.0)[:, None]
    return clipped
