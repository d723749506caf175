"""LEMS-style ranks: one forward pass for each layer says what it suffers, and a knapsack shares out the numbers.

From the paper and its settings (LEMS 2026), without its extra weight for early blocks, which it fits to the model by
trials. Letters: L layers, N windows, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from _baselines import numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from _baselines import Factored, Ranks, Shape
    from _baselines_model import Layers

FEWEST, MOST = 0.1, 0.95  # ranks that are offered, in break-even ranks
STEP = 8
CHUNK = 128  # tokens whose probabilities are held at once


@dataclass(frozen=True)
class Choice:
    """A rank of one layer (None: dense), its numbers, and what it is expected to cost in nats a token."""

    rank: int | None
    numbers: int
    damage: float


def break_even(shape: Shape) -> float:
    """Return the rank at which two factors take as many numbers as the weight."""
    D, E = shape
    return D * E / (D + E)


def probe_rank(shape: Shape, share: float) -> int:
    """Return the rank of the probe, at a share of the break-even rank."""
    return max(1, round(share * break_even(shape)))


def probed(
    layers: Layers,
    factored: Mapping[str, Factored],
    logits: Callable[[], Tensor],
    *,
    share: float,
    tell: Callable[[int, int], None],
) -> dict[str, float]:
    """Return for each layer KL(dense || model with only this layer at the probe's rank), nats a token.

    Args:
        layers: of the model.
        factored: of each layer.
        logits: runs the model on the text of the probes, (N, T, V).
        share: of the break-even rank.
        tell: told layers done and layers in all.
    """
    dense = torch.log_softmax(logits().float(), dim=-1)
    found = {}
    for done, (name, own) in enumerate(factored.items(), start=1):
        rank = probe_rank(layers.shapes[name], share)
        with layers.replaced({name: own.weight(rank)}):
            found[name] = divergence(dense, logits())
        tell(done, len(factored))
    return found


def divergence(dense_log: Tensor, logits: Tensor) -> float:
    """Return the mean over tokens of KL(dense || other), from dense's log-probabilities and the other's logits."""
    dense, other = dense_log.flatten(0, -2), logits.flatten(0, -2)
    total = 0.0
    for log_p, chunk in zip(dense.split(CHUNK), other.split(CHUNK), strict=True):
        log_q = torch.log_softmax(chunk.float(), dim=-1)
        total += float((log_p.exp() * (log_p - log_q)).sum(dtype=torch.float64))
    return total / len(dense)


def choices(shape: Shape, factored: Factored, damage: float, *, share: float) -> list[Choice]:
    """Return what a layer could become: dense, or ranks whose damage is the probe's times the ratio of tails.

    Args:
        damage: measured at the probe's rank.
        share: of the break-even rank, where the probe was.
    """
    squares = factored.sigma.square()
    tails = torch.cat((squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)))
    at_probe = float(tails[probe_rank(shape, share)])
    lowest, highest = (part * break_even(shape) for part in (FEWEST, MOST))
    ranks = range(max(STEP, math.ceil(lowest / STEP) * STEP), math.floor(highest) + 1, STEP)
    scale = damage / at_probe if at_probe > 0 else 0.0
    offered = [Choice(rank, numbers(shape, rank), scale * float(tails[rank])) for rank in ranks]
    return [Choice(None, numbers(shape, None), 0.0), *offered]


def searched(shapes: Mapping[str, Shape], options: Mapping[str, list[Choice]], keep: float) -> Ranks:
    """Return the ranks with the smallest sum of damages among those that keep no more than `keep` of the numbers."""
    most = math.floor(keep * sum(D * E for D, E in shapes.values()))
    taken = knapsack([[(c.numbers, c.damage) for c in options[name]] for name in shapes], most)
    return {name: options[name][choice].rank for name, choice in zip(shapes, taken, strict=True)}


def knapsack(options: Sequence[Sequence[tuple[int, float]]], most: int) -> list[int]:
    """Return one choice of each list whose costs sum to at most `most` and whose damages to the least possible.

    Dynamic programming over the budget in units of the costs' greatest common divisor: exact.

    Raises:
        ValueError: even the cheapest choices cost more.
    """
    unit = math.gcd(*(cost for own in options for cost, _ in own))
    size = most // unit + 1
    best = np.zeros(size)  # the least damage of the layers so far, at most so many units
    picks = []
    for own in options:
        longer, pick = np.full(size, np.inf), np.zeros(size, dtype=np.int32)
        for index, (cost, damage) in enumerate(own):
            units = cost // unit
            if units < size:
                candidate = best[: size - units] + damage
                better = candidate < longer[units:]
                longer[units:][better] = candidate[better]
                pick[units:][better] = index
        best = longer
        picks.append(pick)
    if not np.isfinite(best[-1]):
        raise ValueError(f"{most} numbers are fewer than the cheapest choices take")
    at, found = size - 1, []
    for own, pick in zip(reversed(options), reversed(picks), strict=True):
        found.append(int(pick[at]))
        at -= own[found[-1]][0] // unit
    return found[::-1]
