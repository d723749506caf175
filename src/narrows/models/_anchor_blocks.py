"""A model's blocks run one after another, on hidden states that are held between them.

Letters: N windows, T tokens a window, D features.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from narrows.errors import InputError
from narrows.models._calibrate_batches import batches
from narrows.models._calibrate_forward import exact_products, forward
from narrows.models._calibrate_gram import Gram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from narrows.models._calibrate_batches import Text

PLAIN = "Fit each layer by itself instead (is_anchored=False, --plain)."

SAME = 2**-6  # relative; one rounding to bfloat16 is up to 2^-8


class Seen(Exception):  # noqa: N818 (no error: it ends a forward pass that has shown what was asked for)
    """What was asked for is captured: the rest of the pass need not run."""


@dataclass(frozen=True, eq=False)
class _Call:
    """What a block is given beside hidden states: positions, masks and the like."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Chain:
    """Blocks in order, with what each is given.

    Attributes:
        blocks: (name, module).
        first: hidden states before the first block, of every window.
        calls: of every window and block. Token ids have windows of one length without padding, for which one
            window's arguments are all windows': they are held once.
        masks: (B, T) bool of every window, False for padding; None where there is none.
    """

    blocks: tuple[tuple[str, nn.Module], ...]
    first: list[Tensor]
    calls: list[list[_Call]]
    masks: list[Tensor | None]
    autocast: torch.dtype | None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        blocks: Sequence[tuple[str, nn.Module]],
        windows: Text,
        autocast: torch.dtype | None,
    ) -> Chain:
        """Return the chain of a model for some windows.

        Raises:
            InputError: the blocks do not follow one another, each reading what the one before gave.
        """
        if not blocks[0][0]:
            raise InputError(f"{type(model).__name__} has no repeated blocks: layers cannot be anchored. {PLAIN}")
        chain = cls(tuple(blocks), [], [], [], autocast)
        is_alike = isinstance(windows, torch.Tensor)
        for batch in batches(windows, 1):
            is_whole = not is_alike or not chain.calls
            reads = chain._enter(model, batch.inputs, is_whole=is_whole)
            chain.masks.append(batch.mask)
            if len(chain.first) == 1:
                chain._check_follows(reads)
        return chain

    def through(self, number: int, block: nn.Module, hidden: Tensor, window: int) -> Tensor:
        """Return one window's hidden state behind a block, or behind another in its place."""
        call = self.calls[min(window, len(self.calls) - 1)][number]
        with self._casting(hidden.device):
            given = block(hidden, *call.args, **call.kwargs)
        found = given[0] if isinstance(given, tuple) else given
        if not isinstance(found, torch.Tensor) or found.shape != hidden.shape:
            raise InputError(f"{self.blocks[number][0]} gives no hidden states back: it cannot be anchored. {PLAIN}")
        return found.to(hidden.dtype)

    def dense_pass(
        self, number: int, hidden: Sequence[Tensor], layers: Sequence[str]
    ) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
        """Return what each layer reads, window by window, in the order in which they run, and the block's output.

        Raises:
            InputError: a layer runs another number of times than once a window.
        """
        name, block = self.blocks[number]
        inputs: dict[str, list[Tensor]] = {}

        def keeper(layer: str) -> Callable[..., None]:
            return keeper_of(lambda x: inputs.setdefault(layer, []).append(x))

        handles = [
            block.get_submodule(one.removeprefix(f"{name}.")).register_forward_pre_hook(keeper(one), with_kwargs=True)
            for one in layers
        ]
        try:
            after = [self.through(number, block, one, window) for window, one in enumerate(hidden)]
        finally:
            for handle in handles:
                handle.remove()
        for one in layers:
            times = len(inputs.get(one, ()))
            if times != len(hidden):
                raise InputError(f"{one} runs {times} times in {len(hidden)} windows: it cannot be anchored. {PLAIN}")
        return inputs, after

    def joint_moments(self, dense: Sequence[Tensor], compressed: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
        """Return E[x x'^T] and E[x' x'^T], (D, D) float64: x in the dense, x' in the compressed model."""
        D, device = dense[0].shape[-1], dense[0].device
        cross_DD, second = torch.zeros(D, D, dtype=torch.float64, device=device), Gram(D, device)
        tokens = 0
        for x, seen, mask in zip(dense, compressed, self.masks, strict=True):
            with exact_products(device):
                x_TD, seen_TD = _rows(x, mask).double(), _rows(seen, mask).double()
                cross_DD.addmm_(x_TD.T, seen_TD)
                second.add(seen_TD)
            tokens += len(x_TD)
        return cross_DD / tokens, second.mean(tokens).to(device)

    def _enter(self, model: nn.Module, inputs: Any, *, is_whole: bool) -> list[Tensor]:
        """Keep what the first block reads of a window, and where that is asked for what else each block is given."""
        reads: list[Tensor] = []
        calls: list[_Call] = []

        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs.get("hidden_states")
            if not isinstance(hidden, torch.Tensor):
                raise InputError(f"a block is given no hidden states first: it cannot be anchored. {PLAIN}")
            reads.append(hidden.detach())
            calls.append(_Call(args[1:], {name: one for name, one in kwargs.items() if name != "hidden_states"}))
            if not is_whole:
                raise Seen

        handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for _, block in self.blocks]
        try:
            with self._casting(next(model.parameters()).device):
                forward(model, inputs)
        except Seen:
            pass
        finally:
            for handle in handles:
                handle.remove()
        if is_whole:
            self.calls.append(calls)
        self.first.append(reads[0])
        return reads

    def _check_follows(self, reads: Sequence[Tensor]) -> None:
        """Raise InputError unless every block read what the one before it gave."""
        if len(reads) != len(self.blocks):
            raise InputError(f"{len(self.blocks)} blocks ran {len(reads)} times: they cannot be anchored. {PLAIN}")
        for number, (name, block) in enumerate(self.blocks[:-1]):
            given = self.through(number, block, reads[number], 0)
            following = reads[number + 1]
            if given.shape != following.shape or not _are_alike(given.float(), following.float()):
                raise InputError(
                    f"{self.blocks[number + 1][0]} does not read what {name} gives: they cannot be anchored. {PLAIN}"
                )

    def _casting(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self.autocast is None else torch.autocast(device.type, dtype=self.autocast)


def keeper_of(keep: Callable[[Tensor], None]) -> Callable[..., None]:
    """Return a hook before a layer that hands over what it reads."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        keep(args[0] if args else kwargs["input"])

    return hook


def _are_alike(first: Tensor, second: Tensor) -> bool:
    """Return whether two runs of the same kernels on the same numbers differ by no more than their order of sums."""
    return bool((first - second).norm() <= SAME * second.norm())


def _rows(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the tokens of a tensor (B, T, D), without padding, as rows."""
    if mask is None or mask.shape != x.shape[:-1]:
        return x.flatten(0, -2)
    return x[mask.to(x.device)]
