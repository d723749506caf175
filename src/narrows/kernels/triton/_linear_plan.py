"""What one linear call needs besides its operands' addresses: made once for each shape and layout.

Letters: T tokens, D input, E output features, R rank, N ranks of all members together, S split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from narrows.kernels.triton._launch import Launch
from narrows.kernels.triton._linear_operands import LinearOperands, is_same_memory
from narrows.kernels.triton._projection import Projection, reduce_launch
from narrows.kernels.triton._support import Order, matmul_precision, order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from narrows.kernels._config import Config

Form = Literal["linear", "gated", "group"]
GROUP = 1  # rows of tiles that neighbouring programs of the expansion take in turn
MOST_MEMBERS = 3  # of one launch of the grouped expansion


@dataclass(frozen=True, slots=True)
class Plan:
    """One chain, ready to launch.

    Attributes:
        form: "linear", one pair of factors; "gated", two for one result; "group", each its own result.
        shapes: of the results.
        tokens: T, leading dimensions included.
        is_copied: operands must be copied first (`LinearOperands.flat`).
        split: parts of the projection in float32; 0: one, finished.
        width: N, columns of the projection.
        starts: members whose `a` begins a block of rows that one matmul projects.
        offsets: the column at which each block's projection is written.
        projects: one launch for each block.
        reduce: adds the parts, and the middle bias; None: the expansion adds them, or there is one part.
        expands: one launch, or for a group one for every three members.
    """

    form: Form
    shapes: list[tuple[int, ...]]
    tokens: int
    is_copied: bool
    split: int
    width: int
    starts: tuple[int, ...]
    offsets: tuple[int, ...]
    projects: tuple[Launch, ...]
    reduce: Launch | None
    expands: tuple[Launch, ...]

    def launch(self, stream: int, operands: LinearOperands, outs: Sequence[Tensor]) -> None:
        """Launch the chain on the current device and `stream`, its current stream."""
        if self.is_copied:
            operands = operands.flat()
        p = self._project(stream, operands)
        _, _, b, biases, _, residual = operands
        if self.form == "linear":
            self.expands[0](stream, p, b[0], biases[0], None, residual, outs[0])
        elif self.form == "gated":
            self.expands[0](stream, p, *b, *biases, outs[0])
        else:
            for i, expand in enumerate(self.expands):
                chosen = slice(i * MOST_MEMBERS, (i + 1) * MOST_MEMBERS)
                expand(stream, p, *_three(b[chosen]), *_three(biases[chosen]), *_three(outs[chosen]))

    def _project(self, stream: int, operands: LinearOperands) -> Tensor:
        """Return the projections (T, N) side by side, or their parts (S, T, N) where no kernel adds them."""
        x = operands.x
        if not self.split:
            target = x.new_empty((self.tokens, self.width))
        else:
            target = x.new_empty((self.split, self.tokens, self.width), dtype=torch.float32)
        for launch, start, offset in zip(self.projects, self.starts, self.offsets, strict=True):
            launch(stream, x, operands.a[start], target[..., offset:] if offset else target)
        if self.reduce is None:
            return target
        p = x.new_empty((self.tokens, self.width))
        self.reduce(stream, target, operands.middle_bias, p)
        return p


def make_plan(form: Form, config: Config, operands: LinearOperands, activation: str | None) -> Plan:
    """Return the plan of a call.

    Args:
        form: as in `Plan`.
        config: sizes.
        operands: as they came.
        activation: None or one of ACTIVATIONS.

    Raises:
        ImplementationError: factors with more than one head.
    """
    flat = operands.flat()
    layout = _Layout(config, flat, operands.starts(), activation)
    shapes = operands.shapes()
    T = flat.x.shape[0]
    expands = layout.expands(form) if T else ()
    return Plan(
        form=form,
        shapes=shapes[:1] if form == "gated" else shapes,
        tokens=T,
        is_copied=not is_same_memory(operands, flat),
        split=config.project.split if layout.is_reduced or config.project.split > 1 else 0,
        width=layout.width,
        starts=layout.starts,
        offsets=tuple(layout.firsts[start] for start in layout.starts),
        projects=layout.projects() if T else (),
        reduce=layout.reduce() if T and layout.is_reduced else None,
        expands=expands,
    )


@dataclass(frozen=True)
class _Layout:
    """Where flat operands lie; its methods turn that into launches."""

    config: Config
    operands: LinearOperands
    starts: tuple[int, ...]
    activation: str | None

    @property
    def ranks(self) -> list[int]:
        return [a.shape[0] for a in self.operands.a]

    @property
    def firsts(self) -> list[int]:
        """The column of the projection at which each member begins."""
        return [sum(self.ranks[:i]) for i in range(len(self.ranks))]

    @property
    def width(self) -> int:
        return sum(self.ranks)

    @property
    def is_reduced(self) -> bool:
        """A kernel of its own adds the parts: as configured, and always for a middle bias, which it adds."""
        is_split = self.config.project.split > 1 and self.config.reduce == "kernel"
        return is_split or self.operands.middle_bias is not None

    def projects(self) -> tuple[Launch, ...]:
        """Return one launch for each block of rows, for (x, first member's a, out or its parts)."""
        ends = (*self.starts[1:], len(self.ranks))
        return tuple(
            self._project(self.operands.a[start], sum(self.ranks[start:end]), is_first=start == 0)
            for start, end in zip(self.starts, ends, strict=True)
        )

    def _project(self, a: Tensor, rows: int, *, is_first: bool) -> Launch:
        x = self.operands.x
        projection = Projection(
            tokens=x.shape[0],
            features=x.shape[1],
            heads=1,
            rows=rows,
            x_stride=x.stride(0),
            w_head=rows * a.stride(0),
            w_stride=a.stride(0),
            is_pair=False,
        )
        return projection.launch(
            self.config.project,
            split_stride=x.shape[0] * self.width,
            overlap=self._overlap(is_first=is_first),
            precision=matmul_precision(x.dtype),
            out_stride=self.width,
        )

    def reduce(self) -> Launch:
        """Return the launch for (parts, middle bias, out)."""
        return reduce_launch(
            self.operands.x.shape[0],
            self.width,
            self.config.project.split,
            overlap=self._overlap(is_first=False),
            has_bias=self.operands.middle_bias is not None,
        )

    def expands(self, form: Form) -> tuple[Launch, ...]:
        """Return the launches of the expansion."""
        if form == "linear":
            return (self._linear(),)
        if form == "gated":
            return (self._gated(),)
        return tuple(self._grouped(i) for i in range(0, len(self.ranks), MOST_MEMBERS))

    def _linear(self) -> Launch:
        """Return the launch for (p, b, bias, None, residual, out)."""
        from narrows.kernels.triton.device.outer import outer_kernel

        residual, T, (R, E) = self.operands.residual, self.operands.x.shape[0], self.operands.b[0].shape
        scalars = (
            T, E, 1,
            0, 0, R,
            0, 0, *_strides(self.operands.b[0]),
            T * R,
            0, 0, 0, 0,
            0 if residual is None else residual.stride(0),
            0, E,
            1.0, 1.0,
        )  # fmt: skip
        constants = {
            "RANK": R,
            "GROUP": GROUP,
            "HAS_SCALE": False,
            "HAS_SOFTCAP": False,
            "HAS_BIAS": self.operands.biases[0] is not None,
            "MASK": "",
            "IS_CAUSAL": False,
            "ACTIVATION": self.activation or "",
            "HAS_RESIDUAL": residual is not None,
        }
        return self._expand(outer_kernel, [E], scalars, constants)

    def _gated(self) -> Launch:
        """Return the launch for (p, gate b, up b, gate bias, up bias, out)."""
        from narrows.kernels.triton.device.gated import gated_kernel

        gate_b, up_b = self.operands.b
        T, E = self.operands.x.shape[0], gate_b.shape[1]
        scalars = (T, E, self.ranks[0], self.width, T * self.width, *_strides(gate_b), *_strides(up_b))
        constants = {
            "GATE_RANK": self.ranks[0],
            "UP_RANK": self.ranks[1],
            "HAS_GATE_BIAS": self.operands.biases[0] is not None,
            "HAS_UP_BIAS": self.operands.biases[1] is not None,
            "ACTIVATION": self.activation or "",
        }
        return self._expand(gated_kernel, [E], scalars, constants)

    def _grouped(self, first: int) -> Launch:
        """Return the launch for (p, 3 b, 3 biases, 3 out) of the members from `first` on."""
        from narrows.kernels.triton.device.grouped import grouped_kernel

        chosen = slice(first, first + MOST_MEMBERS)
        b, T = self.operands.b[chosen], self.operands.x.shape[0]
        columns, strides = [w.shape[1] for w in b], [_strides(w) for w in b]
        scalars = (
            T, *_padded(columns), *_padded(self.firsts[chosen]), self.width, T * self.width,
            *_padded([stride for stride, _ in strides]), *_padded([inner for _, inner in strides]),
        )  # fmt: skip
        has_bias = _padded([int(bias is not None) for bias in self.operands.biases[chosen]])
        constants: dict[str, Any] = {f"RANK{i}": rank for i, rank in enumerate(_padded(self.ranks[chosen]))}
        constants |= {f"HAS_BIAS{i}": bool(has) for i, has in enumerate(has_bias)}
        return self._expand(grouped_kernel, columns, scalars, constants)

    def _expand(
        self, function: Any, columns: Sequence[int], scalars: tuple[Any, ...], constants: dict[str, Any]
    ) -> Launch:
        """Return the launch of an expansion into results with these columns."""
        tiles, overlap = self.config.second, self._overlap(is_first=False)
        programs = _tiles(self.operands.x.shape[0], tiles.m) * sum(_tiles(width, tiles.n) for width in columns)
        common = {
            "BLOCK_M": tiles.m,
            "BLOCK_N": tiles.n,
            "BLOCK_K": tiles.k,
            "PARTS": 1 if self.is_reduced else self.config.project.split,
            "OVERLAP": overlap,
            "PRECISION": matmul_precision(self.operands.x.dtype),
            "num_warps": tiles.warps,
            "num_stages": tiles.stages,
            "launch_pdl": bool(overlap),
        }
        return Launch(function, (programs, 1, 1), scalars, {**constants, **common})

    def _overlap(self, *, is_first: bool) -> Order:
        """Return how the first launch, or a later one, follows the one before it."""
        return order(self.config.overlap, self.operands.x.device, is_first=is_first)


def _strides(b_RE: Tensor) -> tuple[int, int]:
    return b_RE.stride(1), b_RE.stride(0)


def _padded(numbers: Sequence[int]) -> list[int]:
    """Return one number for each member that a launch has room for; 0 for those it lacks."""
    return [*numbers, *[0] * (MOST_MEMBERS - len(numbers))]


def _three(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return one tensor for each member that a launch has room for; None for those it lacks."""
    return [*tensors, *[None] * (MOST_MEMBERS - len(tensors))]


def _tiles(size: int, block: int) -> int:
    return -(-size // block)
