"""T1 for attention: the float64 value of softmax(q k^T scale + mask) v and how far rounding can take each element.

Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from narrows._oracle._arithmetic import FLOOR, ROUNDOFF, Arithmetic
from narrows._oracle._bounds import Reference

if TYPE_CHECKING:
    from torch import Tensor

# Relative error of an exponential: ex2.approx has 2 units in the last place (CUDA's PTX reference), torch's
# vectorised one on a CPU 20.
EXP_ERROR = {"cuda": 2.0**-22, "cpu": 2.0**-18}
SMALLEST_BLOCK = 16
MOST_SPLITS = 128


def attention_bound(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, mask: Tensor | None = None, dtype: torch.dtype | None = None
) -> Reference:
    """Return value and bound of softmax(q k^T scale + mask) v, (B, H, T, F); a row that sees no key is 0.

    With u = 2^-24, g_n the error of a sum of n terms, S = |scale| |q||k|^T + |mask| and A its largest value of a row:
    a computed score is off by at most D = g_R A + 8 u A (its sum, the scale, the logarithm's base, the mask).
    Any softmax in parts weighs key j by w_j = exp(s_j - s_max) times a common factor times 1 + e_j: the score and
    the largest one are off by D each, and the weight is multiplied by at most n exponentials, n blocks of 16 keys
    and at most 128 splits, each off by x = its own error + 2 u + 4 u A (that of its argument): e = exp(2 D + n x) - 1.
    The sum of the weights is then off by c = (1 + e)(1 + g_(U+n)) - 1 times itself; that of the values, whose
    weights are rounded to the operands' type (u_p, underflow f), by c_v = (1 + e)(1 + u_p)(1 + g_(U+n)) - 1 times
    the sum of w |v|, and f times the sum of |v|. With P the softmax and L the sum of w, at least 1, the quotient is
    off by E = (c_v P|V| + f sum|v| / L + c |O|) / (1 - c) + u |O|; stored: E + u_out (|O| + E) + floor.

    Args:
        q: (B, H, T, R); rows may be a sample. k: (B, G, U, R). v: (B, G, U, F).
        scale: of the scores.
        mask: broadcasts to (B, H, T, U); bool (True takes part) or added; causality and lengths are in it.
        dtype: of the result and of stored weights; default q's.
    """
    heads = q.shape[1] // k.shape[1]
    arithmetic = Arithmetic.of(dtype or q.dtype, device=q.device)
    q, k, v = (t.detach().to(torch.float64) for t in (q, k, v))
    k, v = (t.repeat_interleave(heads, dim=1) for t in (k, v))
    scores, size = q @ k.mT * scale, q.abs() @ k.abs().mT * abs(scale)
    if mask is not None:
        scores, size = _masked(scores, size, mask)
    P, L = _softmax(scores)
    most = size.amax(-1, keepdim=True)
    R, U = q.shape[-1], k.shape[-2]
    blocks = -(-U // SMALLEST_BLOCK)
    steps = blocks + min(blocks, MOST_SPLITS)
    u = max(ROUNDOFF[torch.float32], arithmetic.accumulator)
    score_error = (arithmetic.gamma(R) + 8 * u) * most
    step_error = EXP_ERROR[q.device.type] + 2 * u + 4 * u * most
    weight = torch.exp(2 * score_error + steps * step_error)
    sums = weight * (1 + arithmetic.gamma(U + steps)) - 1
    stored = (1 + sums) * (1 + ROUNDOFF[arithmetic.stored]) - 1
    value = P @ v
    lost = FLOOR[arithmetic.stored] * v.abs().sum(-2, keepdim=True) / L
    error = (stored * (P @ v.abs()) + lost + sums * value.abs()) / (1 - sums) + u * value.abs()
    return Reference(value, arithmetic.result_error(value, error, 1))


def _masked(scores: Tensor, size: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores with -inf, and magnitudes with 0, where a key takes no part."""
    added = torch.zeros_like(mask, dtype=torch.float64) if mask.dtype == torch.bool else mask.to(torch.float64)
    seen = mask if mask.dtype == torch.bool else mask != -torch.inf
    return (scores + added).masked_fill(~seen, -torch.inf), (size + added.abs()).masked_fill(~seen, 0)


def _softmax(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the softmax, 0 in rows that are -inf throughout, and the sum of weights whose largest is 1."""
    top = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - top.masked_fill(top == -torch.inf, 0))
    total = weights.sum(-1, keepdim=True)
    return weights / total.clamp(min=1), total.clamp(min=1)
