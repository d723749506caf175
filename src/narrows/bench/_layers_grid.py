"""Which ranks of a layer are worth timing: those that make it smaller, in steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from narrows._values import Form

    Option = tuple[Form, int | None]

STEP = 32  # ranks in steps of 32 cost at most 1 % of predicted damage against steps of 8 (SmolLM2-135M)
FEWEST_STEPS = 8  # a narrow layer gets a finer step, so that it has ranks to choose from too


def rank_step(in_features: int, out_features: int, *, coarseness: int = 1) -> int:
    """Return the step between ranks: 32, or for min(D, E) < 256 the power of two that makes 8 to 16 steps.

    Args:
        coarseness: the step is this many times larger.
    """
    narrow = max(1, min(in_features, out_features) // FEWEST_STEPS)
    return coarseness * min(STEP, 1 << (narrow.bit_length() - 1))


def options(in_features: int, out_features: int, step: int) -> tuple[Option, ...]:
    """Return dense, then every rank (a multiple of `step`) of both forms that holds fewer numbers than dense.

    A pair of factors does while R (D + E) < D E, the pivot form while R < min(D, E).
    """
    dense = in_features * out_features
    low_rank = range(step, -(-dense // (in_features + out_features)), step)
    pivot = range(step, min(in_features, out_features), step)
    return (("dense", None), *(("low-rank", r) for r in low_rank), *(("pivot", r) for r in pivot))


def options_of(in_features: int, out_features: int, ranks: tuple[int, ...]) -> tuple[Option, ...]:
    """Return dense and both forms at the ranks asked for, each where it holds fewer numbers than dense."""
    allowed = set(options(in_features, out_features, 1))
    asked = [("low-rank", r) for r in sorted(set(ranks))] + [("pivot", r) for r in sorted(set(ranks))]
    return (("dense", None), *(option for option in asked if option in allowed))
