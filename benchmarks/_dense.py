"""The dense forms of S = x W^T x^T: both orders of the matmuls, both layouts of W, eager or compiled.

Letters: T tokens, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from _rows import MAX_AUTOTUNE

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Form = Callable[[torch.Tensor], torch.Tensor]

PLAIN = ("left out-in", "left in-out", "right out-in", "right in-out")
COMPILED = (f"left {MAX_AUTOTUNE}", f"right {MAX_AUTOTUNE}")


def form(name: str, weight_out_in: torch.Tensor, weight_in_out: torch.Tensor) -> Form:
    """Return a dense form as a function of x (T, D).

    Args:
        name: "left" is (x W^T) x^T, "right" is x (x W)^T; "out-in" reads W as nn.Linear stores it,
            "in-out" its transpose, contiguous; "max-autotune" compiles the form with W out-in.
        weight_out_in: W (D, D). weight_in_out: W^T (D, D), contiguous.
    """
    order, how = name.split(" ")
    weight = weight_in_out if how == "in-out" else weight_out_in
    # x W^T reads W row by row as F.linear does; x W needs it the other way round.
    is_linear = (order == "left") == (how != "in-out")
    run = _left if order == "left" else _right
    if how != MAX_AUTOTUNE:
        return lambda x: run(x, weight, is_linear)
    import torch

    # max-autotune without a CUDA graph of its own: the race captures it in one, as every other form.
    torch.compiler.reset()
    compiled = torch.compile(run, mode="max-autotune-no-cudagraphs", dynamic=False, fullgraph=True)
    return lambda x: compiled(x, weight, is_linear)


def _times(x: torch.Tensor, weight: torch.Tensor, is_linear: bool) -> torch.Tensor:
    return x @ (weight.mT if is_linear else weight)


def _left(x: torch.Tensor, weight: torch.Tensor, is_linear: bool) -> torch.Tensor:
    return _times(x, weight, is_linear) @ x.mT


def _right(x: torch.Tensor, weight: torch.Tensor, is_linear: bool) -> torch.Tensor:
    return x @ _times(x, weight, is_linear).mT
