"""One form of a layer as something to time: weights that the caches do not hold, and a check of the result.

Letters: T rows of x, K sampled rows, D input, E output features, R rank.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from narrows._oracle import LinearOracle, Reference, dense_linear_bound, worst
from narrows.bench._timer import Ring, make_timer
from narrows.errors import ImplementationError
from narrows.ops import linear_planned, pivot_linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from narrows._values import Form
    from narrows.bench._timer import Timer

SCALE = 0.02  # as large as a trained layer's weights, so that two products do not overflow float16
MOST_COPIES = 512  # calls in rotation; the other forms run between two of their turns
CHECKED_ROWS = 4
ALIGNMENT = 64  # elements


class Forms:
    """Makes calls of every form of every shape over one pool of random weights.

    Consecutive calls take different places of the pool: as in a model, where all other layers run between two calls
    of one, the caches do not hold their weights. x is the same one in every call and stays in the cache, as what the
    layer before has just written does; results are dropped at once.

    Args:
        cold_bytes: over how many bytes the weights of one form rotate; more than the caches hold.
        largest: numbers of the largest dense weight.
        dtype, device: of weights and x.
    """

    def __init__(self, *, cold_bytes: int, largest: int, dtype: torch.dtype, device: torch.device) -> None:
        self._cold = -(-cold_bytes // dtype.itemsize)
        self._generator = torch.Generator(device).manual_seed(0)
        self._pool = torch.empty(self._cold + 2 * (largest + ALIGNMENT), dtype=dtype, device=device)
        self._pool.normal_(std=SCALE, generator=self._generator)

    def inputs(self, rows: int, in_features: int) -> Tensor:
        """Return x (T, D), normal random values."""
        made = torch.empty(rows, in_features, dtype=self._pool.dtype, device=self._pool.device)
        return made.normal_(generator=self._generator)

    def timer(self, x: Tensor, out_features: int, form: Form, rank: int | None) -> Timer:
        """Return the timer of a form, one result of which was right.

        Raises:
            ImplementationError: an element of it is further from float64 than rounding can take it.
        """
        shapes = weight_shapes(x.shape[1], out_features, form, rank)
        place = torch.randperm(out_features, generator=self._generator, device=x.device)
        calls = [call(x, form, weights, place) for weights in self._places(shapes)]
        check(x, form, next(iter(self._places(shapes))), place, calls[0]())
        return make_timer(_Dropping(calls), mode="eager", device=x.device)

    def _places(self, shapes: list[tuple[int, int]]) -> list[tuple[Tensor, ...]]:
        """Return the weights of every call in rotation, views of the pool."""
        sizes = [-(-a * b // ALIGNMENT) * ALIGNMENT for a, b in shapes]
        count = min(MOST_COPIES, -(-self._cold // sum(sizes)))
        return [
            tuple(
                self._pool[at : at + a * b].view(a, b)
                for at, (a, b) in zip((first, first + sizes[0]), shapes, strict=False)
            )
            for first in range(0, count * sum(sizes), sum(sizes))
        ]


def weight_shapes(in_features: int, out_features: int, form: Form, rank: int | None) -> list[tuple[int, int]]:
    """Return the shapes of a form's weights: (E, D); (R, D) and (E, R); (R, D) and (E - R, R)."""
    if rank is None:
        return [(out_features, in_features)]
    return [(rank, in_features), (out_features - rank if form == "pivot" else out_features, rank)]


def call(x: Tensor, form: Form, weights: tuple[Tensor, ...], place: Tensor) -> Callable[[], Tensor]:
    """Return what a module of this form computes: nn.Linear, LowRankLinear or PivotLinear."""
    if form == "dense":
        return partial(functional.linear, x, weights[0])
    down, up = weights
    if form == "pivot":
        return partial(pivot_linear, x, down, up, place)
    return partial(linear_planned, x, down, up.mT, None, ())


def check(x: Tensor, form: Form, weights: tuple[Tensor, ...], place: Tensor, y: Tensor) -> None:
    """Raise ImplementationError where sampled rows of a result are further from float64 than rounding allows."""
    rows = torch.linspace(0, x.shape[0] - 1, min(CHECKED_ROWS, x.shape[0]), device=x.device).long()
    ratio = worst(y[rows], _reference(x[rows], form, weights, place))
    if not ratio <= 1:
        sizes = " and ".join(str(tuple(weight.shape)) for weight in weights)
        raise ImplementationError(
            f"the {form} form with weights {sizes} gives a wrong result for {x.shape[0]} rows in {x.dtype} on "
            f"{x.device}: an element is {ratio:.3g} times its derived error bound away from float64. Nothing was timed."
        )


def _reference(x_KD: Tensor, form: Form, weights: tuple[Tensor, ...], place: Tensor) -> Reference:
    if form == "dense":
        return dense_linear_bound(x_KD, weights[0])
    down, up = weights
    others = LinearOracle(x_KD, down, up.mT).at(down.shape[0])
    if form == "low-rank":
        return others
    pivots = dense_linear_bound(x_KD, down)
    value = torch.cat((pivots.value, others.value), dim=-1)
    bound = torch.cat((pivots.bound, others.bound), dim=-1)
    return Reference(value[:, place], bound[:, place])


class _Dropping(Ring):
    """Calls in rotation whose results are dropped: the next call may reuse their memory, as in a model."""

    def turn(self) -> Tensor:
        """Run the next call and return its result."""
        at, self._next = self._next, (self._next + 1) % len(self.calls)
        return self.calls[at]()

    def run(self, count: int) -> None:
        calls, size = self.calls, len(self.calls)
        for index in range(self._next, self._next + count):
            calls[index % size]()
        self._next = (self._next + count) % size
