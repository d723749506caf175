"""What one bilinear call needs besides its operands' addresses: made once for each shape and layout.

Letters: T tokens, U other tokens, D, E features, R rank, H heads, B product of leading dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

from narrows.errors import ImplementationError
from narrows.kernels.triton._launch import Launch
from narrows.kernels.triton._operands import (
    Inputs,
    batch_stride,
    broadcast_lead,
    heads_of,
    is_adjacent,
    mask_strides,
    rows_of,
)
from narrows.kernels.triton._projection import Projection, reduce_launch
from narrows.kernels.triton._support import Order, matmul_precision, order

if TYPE_CHECKING:
    from torch import Tensor

    from narrows.kernels._config import Config
    from narrows.kernels._epilogue import Epilogue

# Tiles of the scores in a column of tiles that neighbouring programs take in turn: 1 writes row by row.
GROUP = 1
MOST_BATCHES = 65535  # of one axis of a CUDA grid


@dataclass(frozen=True, slots=True)
class Plan:
    """One chain, ready to launch.

    Attributes:
        shape: of the scores.
        size: elements of the buffer of projections, p then q.
        offset: where q begins in it, and where y's projection is written.
        parts: float32 elements of the partial sums; 0: no split.
        copies: whether x, a, b, y and the mask must be copied first (the mask expanded), because
            no stride says how they lie.
        x_lead, y_lead: leading dimensions that x and y are expanded to before they are copied; None: as they are.
        project_x, project_y, reduce, scores: the launches; no `project_y` where x is projected for both
            sides at once, no `reduce` without a split.
        config: kept, so that its sizes can be told from the plan.
    """

    shape: tuple[int, ...]
    size: int
    offset: int
    parts: int
    copies: tuple[bool, bool, bool, bool, bool]
    x_lead: tuple[int, ...] | None
    y_lead: tuple[int, ...] | None
    project_x: Launch | None
    project_y: Launch | None
    reduce: Launch | None
    scores: Launch | None
    config: Config

    @property
    def is_empty(self) -> bool:
        """No element to compute."""
        return self.scores is None


@dataclass(frozen=True, slots=True)
class _Side:
    """x or y: its rows, the step of its projection over the batches, and what it is expanded to first, if anything."""

    tokens: int
    batch: int
    expanded: tuple[int, ...] | None


def make_plan(config: Config, inputs: Inputs, epilogue: Epilogue) -> Plan:
    """Return the plan of the finished scores of these inputs.

    Raises:
        ImplementationError: x or y differs by head, or there are more batches or heads than a grid has.
    """
    H = inputs.heads
    x_lead = _lead("x", inputs.x, H)
    y_lead = x_lead if inputs.y is None else _lead("y", inputs.y, H)
    common = broadcast_lead(x_lead, y_lead)
    heads = inputs.a.shape[:1] if inputs.a.ndim == 3 and (H > 1 or not common) else ()
    shape = (*common, *heads, inputs.x.shape[-2], inputs.other.shape[-2])
    if prod(shape) == 0:
        return Plan(shape, 0, 0, 0, (False,) * 5, None, None, None, None, None, None, config)
    if max(prod(common), H) > MOST_BATCHES:
        raise ImplementationError(
            f"impl='triton' cannot run this: B={prod(common)}, H={H}, and a grid takes {MOST_BATCHES} of each at most. "
            "Split the leading dimensions, or use impl='three'."
        )
    return _Layout(config, inputs, epilogue, common, x_lead, y_lead, shape).plan()


def differs_by_head(tensor: Tensor, heads: int) -> bool:
    """Return whether x or y (..., T, D) has a value of its own for each of H heads."""
    return heads > 1 and tensor.ndim > 2 and tensor.shape[-3] != 1


def _lead(name: str, tensor: Tensor, heads: int) -> tuple[int, ...]:
    """Return the leading dimensions without that of the heads."""
    if differs_by_head(tensor, heads):
        raise ImplementationError(
            f"impl='triton' cannot run this: {name} {tuple(tensor.shape)} differs by head (H={heads}), and its "
            "projection reads one x for all heads. Use impl='three'."
        )
    return tuple(tensor.shape[:-3] if heads > 1 else tensor.shape[:-2])


@dataclass(frozen=True)
class _Layout:
    """Where everything lies; `plan` turns it into launches."""

    config: Config
    inputs: Inputs
    epilogue: Epilogue
    common: tuple[int, ...]
    x_lead: tuple[int, ...]
    y_lead: tuple[int, ...]
    shape: tuple[int, ...]

    def plan(self) -> Plan:
        x, a, b, y, _ = self.inputs
        is_pair = y is None and is_adjacent(a, b)
        width = self.inputs.heads * a.shape[-2] * (2 if is_pair else 1)
        x_side = self._side(x, self.x_lead, width)
        y_side = self._side(self.inputs.other, self.y_lead, width)
        rows = x_side.tokens + (0 if is_pair else y_side.tokens)
        offset = width // 2 if is_pair else x_side.tokens * width
        split, size = self.config.project.split, rows * width
        overlap = self._overlap()
        reduce = None if split == 1 else reduce_launch(rows, width, split, overlap=overlap[-1])
        project_x, copies_x, copies_a = self._project(x, a, x_side, size, overlap[0], is_pair=is_pair)
        project_y, copies_y, copies_b = None, False, False
        if not is_pair:
            other = self.inputs.other
            project_y, copies_y, copies_b = self._project(other, b, y_side, size, overlap[-1], is_pair=False)
        scores, copies_mask = self._scores(x_side, y_side, width, overlap=overlap[-1])
        return Plan(
            shape=self.shape,
            size=size,
            offset=offset,
            parts=size * split if split > 1 else 0,
            copies=(copies_x, copies_a, copies_b, copies_y, copies_mask),
            x_lead=x_side.expanded,
            y_lead=y_side.expanded,
            project_x=project_x,
            project_y=project_y,
            reduce=reduce,
            scores=scores,
            config=self.config,
        )

    def _overlap(self) -> tuple[Order, Order]:
        """Return how the first launch, and the others, follow the one before them."""
        device, overlap = self.inputs.x.device, self.config.overlap
        return order(overlap, device, is_first=True), order(overlap, device, is_first=False)

    def _side(self, tensor: Tensor, lead: tuple[int, ...], width: int) -> _Side:
        T = tensor.shape[-2]
        step = batch_stride(lead, self.common, T * width)
        if step is None:
            return _Side(prod(self.common) * T, T * width, (*self.common, *tensor.shape[-2:]))
        return _Side(prod(lead) * T, step, None)

    def _project(
        self, x: Tensor, weight: Tensor, side: _Side, size: int, overlap: Order, *, is_pair: bool
    ) -> tuple[Launch, bool, bool]:
        """Return the launch, and whether x and the weight are copied before it."""
        rows, heads = rows_of(x), heads_of(weight)
        D, R = weight.shape[-1], weight.shape[-2]
        w_head, w_row = heads.head, heads.row
        if is_pair:
            w_head, w_row = (weight.stride(0) if self.inputs.heads > 1 else 2 * R * D), D
        elif R == 1 and self.inputs.heads > 1:
            w_row = w_head  # one row a head: heads follow each other as rows do
        projection = Projection(
            tokens=side.tokens,
            features=D,
            heads=self.inputs.heads,
            rows=2 * R if is_pair else R,
            x_stride=D if side.expanded else rows.stride,
            w_head=w_head,
            w_stride=w_row,
            is_pair=is_pair,
        )
        launch = projection.launch(
            self.config.project, split_stride=size, overlap=overlap, precision=matmul_precision(x.dtype)
        )
        return launch, rows.is_copied or side.expanded is not None, heads.is_copied

    def _scores(self, x_side: _Side, y_side: _Side, width: int, *, overlap: Order) -> tuple[Launch, bool]:
        """Return the launch for (p, q, None, mask, None, out), and whether the mask is copied before it."""
        from narrows.kernels.triton.device.outer import outer_kernel

        (T, U), H = self.shape[-2:], self.inputs.heads
        R, tiles, epilogue = self.inputs.a.shape[-2], self.config.second, self.epilogue
        mask = None if epilogue.mask is None else mask_strides(epilogue.mask, self.shape, H)
        grid = (-(-T // tiles.m) * -(-U // tiles.n), H, prod(self.common))
        scalars = (
            T, U, H,
            x_side.batch, R, width,
            y_side.batch, R, width, 1,
            0,
            *((0, 0, 0, 0) if mask is None else mask[:4]),
            0,
            T * U, U,
            1.0 if epilogue.scale is None else float(epilogue.scale),
            1.0 if epilogue.softcap is None else float(epilogue.softcap),
        )  # fmt: skip
        constants = {
            "RANK": R,
            "BLOCK_M": tiles.m,
            "BLOCK_N": tiles.n,
            "BLOCK_K": tiles.k,
            "GROUP": GROUP,
            "PARTS": 1,
            "HAS_SCALE": epilogue.scale is not None,
            "HAS_SOFTCAP": epilogue.softcap is not None,
            "HAS_BIAS": False,
            "MASK": "" if epilogue.mask is None else "bool" if epilogue.mask.dtype == torch.bool else "add",
            "IS_CAUSAL": epilogue.is_causal,
            "ACTIVATION": "",
            "HAS_RESIDUAL": False,
            "OVERLAP": overlap,
            "PRECISION": matmul_precision(self.inputs.x.dtype),
            "num_warps": tiles.warps,
            "num_stages": tiles.stages,
            "launch_pdl": bool(overlap),
        }
        return Launch(outer_kernel, grid, scalars, constants), mask is not None and mask.is_copied
