"""A copy of one block whose layers become smaller, one group after the other."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

from narrows.models._anchor_blocks import Seen, keeper_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from narrows.models._anchor_blocks import Chain


class Shorter:
    """The block of the compressed model, as far as it is fitted.

    Layers are fitted in the order in which they run, so that whatever runs before the next one is final: it is
    multiplied once for each window, and what it gave is kept for when the block runs again to show what a later layer
    reads. That takes memory for one block's outputs of all windows.
    """

    def __init__(self, chain: Chain, number: int, hidden: Sequence[Tensor]) -> None:
        """Copy a block.

        Args:
            number: of the block.
            hidden: the compressed model's hidden states before it, window by window.
        """
        self._chain, self._number, self._hidden = chain, number, hidden
        self._name, block = chain.blocks[number]
        self._block = copy.deepcopy(block)
        self._window = 0
        self._calls: Counter[str] = Counter()
        self._kept: dict[tuple[str, int, int], Tensor] = {}
        self._once: list[nn.Module] = []
        for name, module in self._block.named_modules():
            if getattr(getattr(module, "weight", None), "ndim", 0) == 2:
                self._run_once_a_window(name, module)

    def inputs_of(self, layer: str) -> Iterator[Tensor]:
        """Yield what a layer reads, window by window; nothing behind the layer is run."""
        seen: list[Tensor] = []

        def keep(x: Tensor) -> None:
            seen.append(x)
            raise Seen

        found = self._block.get_submodule(self._within(layer))
        for window in range(len(self._hidden)):
            handle = found.register_forward_pre_hook(keeper_of(keep), with_kwargs=True)
            try:
                self._run(window)
            except Seen:
                pass
            finally:
                handle.remove()
            yield seen.pop()

    def put(self, layer: str, weight: Tensor) -> None:
        """Give a layer that has not run yet its weight, in the layer's own layout."""
        found: Any = self._block.get_submodule(self._within(layer))
        found.weight.data = weight.to(found.weight).contiguous()

    def after(self) -> list[Tensor]:
        """Return the hidden states behind the block; the last call, after which nothing is kept."""
        found = [self._run(window) for window in range(len(self._hidden))]
        self._kept.clear()
        for layer in self._once:
            del layer.forward  # it holds this object, which holds the layer: a circle of 90 MB is freed late
        return found

    def _run(self, window: int) -> Tensor:
        self._window = window
        self._calls.clear()
        return self._chain.through(self._number, self._block, self._hidden[window], window)

    def _run_once_a_window(self, name: str, layer: nn.Module) -> None:
        """Keep what each call of a layer gives, and give copies: the block may change what it is given in place."""
        run: Callable[..., Tensor] = layer.forward

        def once(*args: Any, **kwargs: Any) -> Tensor:
            self._calls[name] += 1
            call = name, self._window, self._calls[name]
            if call not in self._kept:
                self._kept[call] = run(*args, **kwargs)
            return self._kept[call].clone()

        layer.forward = once
        self._once.append(layer)

    def _within(self, layer: str) -> str:
        return layer.removeprefix(f"{self._name}.")
