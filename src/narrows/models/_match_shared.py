"""Which layers read the same tensor: seen in one forward pass, not guessed from names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from narrows.models._calibrate_forward import forward, quiet_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from narrows.models._match import Target

Window = torch.Tensor | Mapping[str, torch.Tensor]
FEW_TOKENS = 16  # enough to see which tensors are shared


def shared_inputs(model: nn.Module, targets: Sequence[Target], window: Window) -> dict[str, str]:
    """Return layer name -> group: the name of the first layer that reads the very same tensor.

    Two reads are the same where address, version, shape and strides agree while every input is kept
    alive; a layer that is called several times must agree in every call. A layer that the forward
    pass does not reach is a group of its own.

    Args:
        window: T tokens, (1, T) or (T,) int64, of which the first 16 are used; or a model's keyword
            arguments.
    """
    reads: dict[str, list[tuple[Any, ...]]] = {one.name: [] for one in targets}
    alive: list[torch.Tensor] = []

    def watched(name: str) -> Callable[..., None]:
        def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            alive.append(x)
            reads[name].append((x.data_ptr(), x._version, x.shape, x.stride()))  # noqa: SLF001 (torch's public name for it)

        return look

    handles = [one.module.register_forward_pre_hook(watched(one.name), with_kwargs=True) for one in targets]
    try:
        with torch.inference_mode(mode=False), torch.no_grad(), quiet_model(model):
            forward(model, _shortened(window))
    finally:
        for handle in handles:
            handle.remove()
    return _first_of_each(reads)


def _first_of_each(reads: Mapping[str, list[tuple[Any, ...]]]) -> dict[str, str]:
    first: dict[tuple[Any, ...], str] = {}
    return {name: first.setdefault(tuple(seen), name) if seen else name for name, seen in reads.items()}


def _shortened(window: Window) -> Window:
    return window if isinstance(window, Mapping) else window.reshape(1, -1)[:, :FEW_TOKENS]
