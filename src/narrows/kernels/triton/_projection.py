"""Launches of the projections of a bilinear chain into one buffer, and of the sum of their parts.

Letters: T tokens, D features, R rank, H heads, N rows of one projection, S split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from narrows.kernels.triton._launch import Launch

if TYPE_CHECKING:
    from narrows.kernels._config import Tiles
    from narrows.kernels.triton._support import Order

# Elements that one program of the reduction adds, by how many there are: small sums are spread over many programs.
REDUCE_BLOCKS = ((1 << 18, 1024), (1 << 16, 512), (0, 128))


@dataclass(frozen=True, slots=True)
class Projection:
    """x w^T for all heads.

    Attributes:
        tokens: rows of x, leading dimensions included.
        features: D.
        heads: H.
        rows: of one head: R, or 2R for a pair.
        x_stride: elements between two rows of x.
        w_head, w_stride: elements between two heads and between two rows of the weight.
        is_pair: rows of a and b in turn.
    """

    tokens: int
    features: int
    heads: int
    rows: int
    x_stride: int
    w_head: int
    w_stride: int
    is_pair: bool

    @property
    def width(self) -> int:
        """Columns of the result: H N."""
        return self.heads * self.rows

    def launch(
        self, tiles: Tiles, *, split_stride: int, overlap: Order, precision: str, out_stride: int | None = None
    ) -> Launch:
        """Return the launch for tensors (x, w, out); out is a stack of parts above split = 1.

        Args:
            tiles: sizes.
            split_stride: elements between two parts.
            overlap: how it follows the launch before it.
            precision: of float32 operands, "ieee" or "tf32".
            out_stride: elements between two rows of out; default: the width.
        """
        from narrows.kernels.triton.device.project import project_kernel
        from narrows.kernels.triton.device.project_heads import project_heads_kernel

        constants = self._constants(tiles, overlap=overlap, precision=precision)
        steps = (self.width if out_stride is None else out_stride, split_stride)
        if self.heads == 1 or self.w_head == self.rows * self.w_stride:
            grid = (_tiles(self.tokens, tiles.m) * _tiles(self.width, tiles.n), tiles.split, 1)
            sizes = (self.tokens, self.features, self.width, self.x_stride, self.w_stride)
            return Launch(project_kernel, grid, (*sizes, *steps), constants)
        grid = (_tiles(self.tokens, tiles.m) * _tiles(self.rows, tiles.n), tiles.split, self.heads)
        per_head = (self.tokens, self.features, self.rows, self.x_stride, self.w_head, self.w_stride)
        return Launch(project_heads_kernel, grid, (*per_head, *steps), constants)

    def _constants(self, tiles: Tiles, *, overlap: Order, precision: str) -> dict[str, Any]:
        return {
            "BLOCK_M": tiles.m,
            "BLOCK_N": tiles.n,
            "BLOCK_K": tiles.k,
            "IS_PAIR": self.is_pair,
            "IS_EVEN": self.features % (tiles.k * tiles.split) == 0,
            "OVERLAP": overlap,
            "PRECISION": precision,
            "STEPS": _tiles(self.features, tiles.k * tiles.split),
            "num_warps": tiles.warps,
            "num_stages": tiles.stages,
            "launch_pdl": bool(overlap),
        }


def reduce_launch(tokens: int, columns: int, split: int, *, overlap: Order, has_bias: bool = False) -> Launch:
    """Return the launch for tensors (parts, bias or None, out): parts (S, T, N) in float32, bias (N,), out (T, N)."""
    from narrows.kernels.triton.device.reduce import reduce_kernel

    size = tokens * columns
    block = next(elements for least, elements in REDUCE_BLOCKS if size >= least)
    constants = {
        "BLOCK": block,
        "SPLIT": split,
        "HAS_BIAS": has_bias,
        "OVERLAP": overlap,
        "num_warps": 4 if block > 128 else 1,
        "launch_pdl": bool(overlap),
    }
    return Launch(reduce_kernel, (_tiles(size, block), 1, 1), (size, columns, size), constants)


def _tiles(size: int, block: int) -> int:
    return -(-size // block)
