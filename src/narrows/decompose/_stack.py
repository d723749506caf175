"""One factorisation of several weights that read the same input, one on top of the other: they share a projection.

Letters: D input features, E output features of all layers together, N features of one side, K columns, R rank.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from narrows._cost import workspace_bytes
from narrows._machine import fitting
from narrows.decompose._anchored import anchored_in
from narrows.decompose._weighted import check_matrix, check_method, decompose
from narrows.decompose._weighted_moment import Metric, Moment
from narrows.errors import DtypeError, InputError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows._values import Moments
    from narrows.decompose._weighted import WeightedMethod
    from narrows.decompose._weighted_moment import Root, Side
    from narrows.decompose._weighted_value import Weighted


@torch.no_grad()
def weighted_stack(
    weights: Sequence[torch.Tensor],
    moments: Sequence[Moments],
    *,
    method: WeightedMethod,
    shrink_inputs: float = 0.02,
    shrink_gradients: float = 0.1,
) -> Weighted:
    """Return every rank of the weights [W_1; W_2; ...] as of one weight, best for the data that `moments` saw.

    The factors of rank R hold one projection a (R, D) for all layers, and b (R, E) whose columns are the layers' own
    expansions, in order. "two-sided" is `weighted` of the stack with the moment of gradients that has G_1, G_2, ... as
    its diagonal blocks: gradients of different layers count as uncorrelated, as they do wherever damages of layers are
    added up. Its damage is then the sum of the layers' damages, in nats a token. "one-sided" weighs each layer by
    1 / E||W_s x||^2, so that damage is the sum of the shares of each layer's output that are lost.

    Args:
        weights: of each layer, (E_s, D), of one dtype and device.
        moments: of each layer; `inputs` of the first one are all layers'.
        method, shrink_inputs, shrink_gradients: as in `weighted`; each G_s is shrunk by itself.

    Raises:
        InputError: no layer, another number of moments, or as `weighted`.
        ShapeError, DtypeError, DeviceError, NonFiniteError: as their names say.
        ResourceError: it takes more memory than is free.
    """
    started = time.perf_counter()
    weight_ED = _stacked(weights, moments)
    for one in moments:
        check_method(method, one)
    E, D = weight_ED.shape
    needed = sum(workspace_bytes(D, len(one)) for one in weights)
    what = f"decomposing {len(weights)} weights as one, {(E, D)}, with their moments in float64"
    with fitting(needed, str(weight_ED.device), what=what, advice="Free some, or let each have its own projection."):
        inputs = Moment.of("moments.inputs", moments[0].inputs, like=weight_ED, size=D, share=shrink_inputs)
        metric = _metric(weights, moments, inputs, is_in_nats=method == "two-sided", share=shrink_gradients)
        parts = decompose(weight_ED.to(torch.float64), metric)
        return parts.weighted(method, weight_ED.dtype, constant=0.0, started=started)


@torch.no_grad()
def anchored_stack(
    weights: Sequence[torch.Tensor],
    moments: Sequence[Moments],
    cross_DD: torch.Tensor,
    inputs_DD: torch.Tensor,
    *,
    shrink_inputs: float = 0.02,
    shrink_gradients: float = 0.1,
) -> Weighted:
    """Return every rank of the stack that takes the compressed input to all dense outputs: `anchored` of a stack.

    Args:
        weights: of each layer, (E_s, D), dense.
        moments: of each layer, in the dense model; with `gradients` of all of them damage is in nats a token, else in
            shares of each layer's output.
        cross_DD, inputs_DD: as in `anchored`; all layers read one input.
        shrink_inputs, shrink_gradients: as in `weighted_stack`.

    Raises:
        As `weighted_stack`.
    """
    started = time.perf_counter()
    weight_ED = _stacked(weights, moments)
    has_gradients = all(one.gradients is not None for one in moments)
    inputs = Moment.of("inputs", inputs_DD, like=weight_ED, size=weight_ED.shape[1], share=shrink_inputs)
    metric = _metric(weights, moments, inputs, is_in_nats=has_gradients, share=shrink_gradients)
    return anchored_in(metric, weight_ED, cross_DD, started=started)


@dataclass(frozen=True, eq=False)
class _Multiple:
    """A multiple of the identity."""

    name: str
    factor: float

    def times(self, x_NK: torch.Tensor) -> torch.Tensor:
        """Return its product with x, (N, K)."""
        return x_NK * self.factor


@dataclass(frozen=True, eq=False)
class _Blocks:
    """A matrix of diagonal blocks; only they are held, so that two layers take as much memory as one and one.

    Attributes:
        sizes: of the blocks; they add up to N.
        device: where they are.
    """

    name: str
    blocks: tuple[Moment | _Multiple, ...]
    sizes: list[int]
    device: torch.device

    def times(self, x_NK: torch.Tensor) -> torch.Tensor:
        """Return its product with x, (N, K)."""
        return torch.cat([one.times(x) for one, x in zip(self.blocks, torch.split(x_NK, self.sizes), strict=True)])

    def root(self) -> Root:
        """Return L with L L^T = the matrix; asked for only where all layers together have fewer outputs than inputs."""
        identity = torch.eye(sum(self.sizes), dtype=torch.float64, device=self.device)
        return Moment(self.name, self.times(identity), 0.0).root()


def _metric(
    weights: Sequence[torch.Tensor], moments: Sequence[Moments], inputs: Moment, *, is_in_nats: bool, share: float
) -> Metric:
    """Return the norm of a stack: with each layer's gradients, or relative to the size of each layer's output."""
    blocks: list[Moment | _Multiple] = []
    for place, (weight, one) in enumerate(zip(weights, moments, strict=True)):
        name = f"moments[{place}].gradients"
        if is_in_nats and one.gradients is not None:
            blocks.append(Moment.of(name, one.gradients, like=weight, size=len(weight), share=share))
        else:
            blocks.append(_Multiple(name, 1 / _energy(weight, one, inputs)))
    side: Side = _Blocks("the gradients of the stack", tuple(blocks), list(map(len, weights)), weights[0].device)
    return Metric(inputs, side, is_in_nats=is_in_nats)


def _energy(weight: torch.Tensor, moments: Moments, inputs: Moment) -> float:
    """Return E||W x||^2 in the dense model, with shrunk moments; 1.0 for a weight of zeros."""
    dense = Moment.of("moments.inputs", moments.inputs, like=weight, size=weight.shape[1], share=inputs.share)
    return Metric(dense, None, is_in_nats=False).norm(weight.detach().to(torch.float64)) ** 2 or 1.0


def _stacked(weights: Sequence[torch.Tensor], moments: Sequence[Moments]) -> torch.Tensor:
    """Return the weights one on top of the other, (E, D)."""
    if not weights or len(weights) != len(moments):
        raise InputError(f"{len(weights)} weights and {len(moments)} moments: give one of each for each layer.")
    for place, weight in enumerate(weights):
        check_matrix(f"weights[{place}]", weight)
    shapes, kinds = [tuple(one.shape) for one in weights], {(one.dtype, one.device) for one in weights}
    if len({D for _, D in shapes}) > 1:
        raise ShapeError(f"weights {shapes} must be (E, D) with one D: layers of a stack read one input.")
    if len(kinds) > 1:
        raise DtypeError(f"weights are {[(one.dtype, str(one.device)) for one in weights]}: give all the same.")
    return torch.cat([one.detach() for one in weights])
