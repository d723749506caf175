"""y = x W^T for a weight in pivot form: its pivot rows by one matmul, all others from their results.

Letters: T tokens, D input, E output features, R rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def pivot_linear(x: Tensor, rows: Tensor, rest: Tensor, inverse_order: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return y (..., E) of x (..., D): [p; rest p] for p = rows x, put into the weight's order, plus bias.

    Made of torch's operations only: autograd, autocast and the compiler see through it.

    Args:
        x: (..., D).
        rows: (R, D), the weight's rows order[:R].
        rest: (E - R, R); the weight's rows order[R:] are `rest @ rows`.
        inverse_order: (E,) int64, on the device of x: row e of the weight is row inverse_order[e] of
            [rows; rest @ rows], so inverse_order[order] = 0..E-1.
        bias: (E,), in the weight's own order.

    Source: Zhao et al. (2025), pivoting factorization.
    """
    pivots = functional.linear(x, rows)
    both = torch.cat((pivots, functional.linear(pivots, rest)), dim=-1)
    # gather, as measured on one core of a CPU at 512 and 2048 tokens: in bfloat16 index_select makes the whole call 15
    # to 30 % slower and two index_copy_ 7 to 15 %; in float32 index_select is 1 to 5 % faster, the others slower.
    y = both.gather(-1, inverse_order.expand(both.shape))
    return y if bias is None else y.add_(bias)
