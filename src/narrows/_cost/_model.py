"""What compressing a model will take and can gain at most, by formula, before anything runs.

Letters: D input, E output features of a layer, T tokens, C tokens in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from narrows.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows._values import Workload

FLOAT64_BYTES = 8
SVD_FLOPS = 10  # times min(D, E)^2 max(D, E): 6 for long ones, 17 for square ones (Golub and Van Loan 2013, 8.6)
EIGEN_FLOPS = 9  # times n^3: values and vectors of a symmetric matrix (same, 8.3)
WORKSPACES = 3  # copies of a layer's moments and weight that a decomposition holds beside its own


@dataclass(frozen=True, slots=True)
class ModelEstimate:
    """What a compression takes and can gain.

    Attributes:
        pass_flops: forward, and backward where gradients are asked for, over the calibration tokens.
        moment_flops: sums of outer products, in float64.
        decomposition_flops: of every layer, in float64.
        calibration_seconds, decomposition_seconds: at the given rates; None where a rate is not known. No machine
            keeps its best rate throughout: they are the least.
        peak_bytes: weights, moments and the largest of activations, a decomposition's workspace, and anchoring.
        gains: (kept, speedup), the speedup that keeping this share of the linears' numbers gives where time is
            proportional to FLOPs: the most that can be had.
    """

    pass_flops: int
    moment_flops: int
    decomposition_flops: int
    calibration_seconds: float | None
    decomposition_seconds: float | None
    peak_bytes: int
    gains: tuple[tuple[float, float], ...]


def estimate(
    shapes: Sequence[tuple[int, int]],
    *,
    tokens: int,
    itemsize: int,
    parameters: int | None = None,
    has_gradients: bool = True,
    window: int = 512,
    vocabulary: int = 0,
    attention_features: int = 0,
    head_numbers: int = 0,
    anchored_features: int = 0,
    workloads: Sequence[Workload] = (),
    kept: Sequence[float] = (0.9, 0.8, 0.7, 0.5),
    flops_per_s: float | None = None,
    float64_flops_per_s: float | None = None,
) -> ModelEstimate:
    """Return what calibrating and factorising some layers takes, and what can be gained at most.

    Args:
        shapes: (D, E) of every layer that may change.
        tokens: that calibrate.
        itemsize: bytes of one number of the model.
        parameters: numbers of the whole model that a token is multiplied with; default the layers' alone.
        has_gradients: moments of gradients are taken too, with a backward pass.
        window: tokens in one calibration pass.
        vocabulary: logits a token; 0: none are made.
        attention_features: heads x head size, summed over the blocks.
        head_numbers: of the matrix that makes logits; one token of each sequence needs it.
        anchored_features: hidden states of both models and a block's inputs, which anchoring holds of every token; 0:
            no layer is anchored.
        workloads: that the gain is for; without any it is that of the layers alone.
        kept: shares for which the gain is wanted.
        flops_per_s: of the model's passes.
        float64_flops_per_s: of moments and decompositions.

    Raises:
        InputError: no shapes, or tokens below 1.
    """
    if not shapes or tokens < 1:
        raise InputError(f"shapes={list(shapes)!r} must hold a layer, and tokens={tokens} be at least 1.")
    linears = sum(D * E for D, E in shapes)
    passes = (6 if has_gradients else 2) * (parameters or linears) * tokens
    moments = 2 * tokens * _moment_numbers(shapes, has_gradients=has_gradients)
    decomposition = sum(_decomposition_flops(D, E, has_gradients=has_gradients) for D, E in shapes)
    held = itemsize * (parameters or linears) + FLOAT64_BYTES * (
        _moment_numbers(shapes, has_gradients=has_gradients) + sum(D for D, _ in shapes)
    )
    activations = itemsize * window * (sum(D + E for D, E in shapes) + 2 * vocabulary)
    joint = 2 * FLOAT64_BYTES if anchored_features else 0  # moments of x in both models
    anchored = itemsize * tokens * anchored_features
    return ModelEstimate(
        pass_flops=passes,
        moment_flops=moments,
        decomposition_flops=decomposition,
        calibration_seconds=_added(_seconds(passes, flops_per_s), _seconds(moments, float64_flops_per_s)),
        decomposition_seconds=_seconds(decomposition, float64_flops_per_s),
        peak_bytes=held + max(activations, *(workspace_bytes(D, E) + joint * D * D + anchored for D, E in shapes)),
        gains=tuple((share, _gain(share, linears, workloads, attention_features, head_numbers)) for share in kept),
    )


def _moment_numbers(shapes: Sequence[tuple[int, int]], *, has_gradients: bool) -> int:
    return sum(D * D + (E * E if has_gradients else 0) for D, E in shapes)


def _decomposition_flops(D: int, E: int, *, has_gradients: bool) -> int:
    """Return the FLOPs of one SVD of the weighted layer and of the roots of its moments."""
    roots = D**3 + (E**3 if has_gradients else 0)
    return SVD_FLOPS * min(D, E) ** 2 * max(D, E) + EIGEN_FLOPS * roots


def workspace_bytes(D: int, E: int) -> int:
    """Return the bytes that decomposing a layer takes beside its weight and its moments."""
    return WORKSPACES * FLOAT64_BYTES * (D * D + E * E + D * E)


def _seconds(flops: int, flops_per_s: float | None) -> float | None:
    return None if flops_per_s is None else flops / flops_per_s


def _added(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _gain(
    kept: float, linears: int, workloads: Sequence[Workload], attention_features: int, head_numbers: int
) -> float:
    """Return dense FLOPs / FLOPs with that share kept, over the workloads by weight."""
    if not workloads:
        return 1 / kept
    layers = sum(load.weight * 2 * load.rows * linears for load in workloads)
    rest = sum(load.weight * other_flops(load, attention_features, head_numbers) for load in workloads)
    return (layers + rest) / (kept * layers + rest)


def other_flops(workload: Workload, attention_features: int, head_numbers: int) -> int:
    """Return FLOPs of one pass outside the linears: attention, causal, and the logits of one token a sequence.

    prefill: 2 T^2 for each feature (scores and values, half of them masked); decode: 4 C.
    """
    tokens = workload.tokens
    each = 2 * tokens * tokens if workload.phase == "prefill" else 4 * tokens
    return workload.batch * (each * attention_features + 2 * head_numbers)
