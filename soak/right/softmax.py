"""What softmax(q k^T scale + mask) v and its gradients must be, and how far rounding can take them.

The forward pass is that of `narrows._oracle._attention.attention_bound`, for queries and keys that may already be
off. The backward pass, with G the gradient of O = P V and d = sum of G O over a row:
    dV = P^T G;  dS = P (G V^T - d);  dQ = scale dS K;  dK = scale dS^T Q;  the mask's is dS
Weights and dS may be rounded to the operands' type before they are multiplied, and dK and dV may be added up in
that type, block of rows after block (torch's fused kernel on a CPU takes 32 rows at a time).

Letters: B batch, H heads, T query rows, U keys, R rank, F width of a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from narrows._oracle._arithmetic import FLOOR, ROUNDOFF
from soak.right.bounds import Chain, Known

if TYPE_CHECKING:
    from torch import Tensor

# torch's vectorised exponential in float32 has 20 units in the last place, that in float64 one or two.
EXP_ERROR = {torch.float64: 2.0**-50}
EXP_ERROR_FLOAT32 = 2.0**-18
KEYS_A_BLOCK = 16
ROWS_A_BLOCK = 32
VACUOUS = 0.5  # an error of the weights' sum from which a bound says nothing


@dataclass(frozen=True, eq=False)
class Softmax:
    """Attributes:
    weights: (B, H, T, U), before they are rounded to the operands' type.
    out: (B, H, T, F).
    relative: (B, H, T, 1): the weights' error over the weights.
    size: (B, H, T, 1): largest magnitude of a row's scores and of what is added up to them.
    """

    weights: Known
    out: Known
    relative: Tensor
    size: Tensor


@dataclass(frozen=True, eq=False)
class Inputs:
    """Attributes:
    q, k, v: with the same heads; finite.
    scale: of the scores.
    added: (B, H, T, U), finite.
    seen: (B, H, T, U).
    """

    q: Known
    k: Known
    v: Known
    scale: float
    added: Tensor
    seen: Tensor


def softmax(chain: Chain, given: Inputs) -> Softmax | None:
    """Return the forward pass; None where rounding can change the scores so much that a bound says nothing."""
    q, k, v, unit = given.q, given.k, given.v, chain.unit
    scores = (q.value @ k.value.mT * given.scale + given.added).masked_fill(~given.seen, -math.inf)
    size = (abs(given.scale) * (q.most @ k.most.mT) + given.added.abs()).masked_fill(~given.seen, 0)
    shift = abs(given.scale) * (q.error @ k.value.abs().mT + q.most @ k.error.mT)
    error = shift.masked_fill(~given.seen, 0) + (chain.arithmetic.gamma(q.value.shape[-1]) + 8 * unit) * size
    most, furthest = largest(size), largest(error)
    U = scores.shape[-1]
    steps = -(-U // KEYS_A_BLOCK) + 1
    one_step = EXP_ERROR.get(chain.dtype, EXP_ERROR_FLOAT32) + 2 * unit + 4 * unit * most
    sums = torch.exp(2 * furthest + steps * one_step) * (1 + chain.arithmetic.gamma(U + steps)) - 1
    if sums.numel() and not float(sums.max()) < VACUOUS:
        return None
    relative = (1 + sums) / (1 - sums) - 1
    P = weights_of(scores)
    weights = Known(P, relative * P)
    kept = rounded_weights(chain, weights)
    value, off, terms = chain.wide_product(kept, v)
    out = chain.stored(value, off + (unit + chain.arithmetic.gamma(steps)) * (kept.most @ v.most), terms)
    return Softmax(weights, out, relative, most)


def gradients(chain: Chain, given: Inputs, forward: Softmax, grad: Known) -> tuple[Known, Known, Known, Known]:
    """Return the gradients of q, k, v and of what is added to the scores, with all heads."""
    q, k, v, unit = given.q, given.k, given.v, chain.unit
    again = torch.exp(2 * unit * (2 * forward.size + math.log(max(1, given.seen.shape[-1])) + 1))
    relative = (1 + forward.relative) * again - 1
    P = Known(forward.weights.value, relative * forward.weights.value)
    dv = in_blocks(chain, rounded_weights(chain, P), grad)
    dp = Known(*chain.wide_product(grad, v.transposed)[:2])
    d = row_sums(chain, forward, grad, v)
    difference = Known(dp.value - d.value, dp.error + d.error + 2 * unit * (dp.most + d.most))
    error = P.error * difference.value.abs() + P.most * difference.error + 4 * unit * P.most * difference.most
    ds = Known(P.value * difference.value, error)
    kept = chain.stored(ds.value, ds.error)
    number = abs(given.scale)
    scaled = Known(kept.value * given.scale, number * (kept.error + 2 * unit * kept.most))
    return chain.product(scaled, k), in_blocks(chain, scaled, q), dv, kept


def row_sums(chain: Chain, forward: Softmax, grad: Known, v: Known) -> Known:
    """Return d, summed over F from the stored result, or over U from weights: an error that covers both."""
    (F, U), gamma = (v.value.shape[-1], v.value.shape[-2]), chain.arithmetic.gamma
    size = forward.weights.most @ v.most
    off = forward.out.error + (forward.relative + gamma(F) + gamma(U)) * size + chain.unit * forward.out.most
    value = (grad.value * forward.out.value).sum(-1, keepdim=True)
    return Known(value, (grad.value.abs() * off).sum(-1, keepdim=True))


def in_blocks(chain: Chain, left: Known, right: Known) -> Known:
    """Return left^T right, which may have been rounded after every block of rows."""
    value, error, terms = chain.wide_product(left.transposed, right)
    blocks = -(-left.value.shape[-2] // ROWS_A_BLOCK)
    return chain.stored(value, error + blocks * ROUNDOFF[chain.dtype] * (left.most.mT @ right.most), terms)


def rounded_weights(chain: Chain, weights: Known) -> Known:
    """Return weights that may have been rounded to the operands' type, or have vanished there."""
    unit = ROUNDOFF[chain.dtype]
    return Known(weights.value, weights.error + unit * weights.most + FLOOR[chain.dtype] * (weights.value > 0))


def weights_of(scores: Tensor) -> Tensor:
    """Return the softmax; 0 in rows that are -inf throughout."""
    if not scores.shape[-1]:
        return scores
    top = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - top.masked_fill(top == -math.inf, 0))
    return weights / weights.sum(-1, keepdim=True).clamp(min=1)


def largest(values: Tensor) -> Tensor:
    """Return the largest of each row, (..., 1); 0 for rows without elements."""
    return values.amax(-1, keepdim=True) if values.shape[-1] else values.sum(-1, keepdim=True)
