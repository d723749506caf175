"""Attention as any model has it: four weights, and what is needed to use them; narrowed and padded again here.

Letters: D input, E output features, H heads, G key heads, K width of a head, R and F narrow widths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from narrows.decompose import check_width
from narrows.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from narrows.decompose import HeadMaps, ValueMaps


@dataclass(frozen=True, eq=False)
class Projection:
    """weight (out, in), as nn.Linear keeps it, and a bias (out,) or None."""

    weight: Tensor
    bias: Tensor | None = None

    def rows(self, change: Callable[[Tensor], Tensor]) -> Projection:
        """Return the projection with its rows changed, in float64; the bias counts as one more column."""
        weight = change(self.weight.detach().to(torch.float64)).to(self.weight)
        if self.bias is None:
            return Projection(weight)
        return Projection(weight, change(self.bias.detach().to(torch.float64)[:, None])[:, 0].to(self.bias))


@dataclass(frozen=True, eq=False)
class DenseAttention:
    """softmax(q k^T scale) v with q, k, v of x, through an output layer.

    Attributes:
        query: (H R, D); key: (G R, D); value: (G F, D); output: (E, H F). As a model has it, R = F = K.
        heads, groups: H and G, G dividing H.
        scale: multiplies the scores.
        is_causal: tokens see themselves and those before them.
        pairs: (G, R / 2) int64, the rotary frequency of each pair (i, R / 2 + i); None: no rotary positions.
        dropout: share of the attention weights that training drops.
    """

    query: Projection
    key: Projection
    value: Projection
    output: Projection
    heads: int
    groups: int
    scale: float
    is_causal: bool = False
    pairs: Tensor | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        H, G = self.heads, self.groups
        rows = {"query": (self.query, H), "key": (self.key, G), "value": (self.value, G)}
        if G < 1 or H % G:
            raise ShapeError(f"groups={G} must be at least 1 and divide heads={H}.")
        for name, (projection, heads) in rows.items():
            if projection.weight.ndim != 2 or projection.weight.shape[0] % heads:
                raise ShapeError(
                    f"{name} {tuple(projection.weight.shape)} must be (rows, D), rows a multiple of {heads}."
                )
        if self.query.weight.shape[0] * G != self.key.weight.shape[0] * H:
            raise ShapeError(
                f"query {tuple(self.query.weight.shape)} of {H} heads and key {tuple(self.key.weight.shape)} of {G} "
                "must have heads of the same width."
            )
        if self.output.weight.shape[1] != H * self.value_width:
            raise ShapeError(
                f"output {tuple(self.output.weight.shape)} must read H F = {H} x {self.value_width} features."
            )
        if self.pairs is not None and self.pairs.shape != (G, self.query_key_width // 2):
            raise ShapeError(f"pairs {tuple(self.pairs.shape)} must be (G, R / 2) = {(G, self.query_key_width // 2)}.")

    @property
    def query_key_width(self) -> int:
        """R."""
        return int(self.key.weight.shape[0] // self.groups)

    @property
    def value_width(self) -> int:
        """F."""
        return int(self.value.weight.shape[0] // self.groups)

    @torch.no_grad()
    def narrowed(self, query_key: HeadMaps | None = None, value: ValueMaps | None = None) -> DenseAttention:
        """Return the attention of narrower heads; what is None stays as it is.

        Products are formed in float64 and rounded once.

        Raises:
            ShapeError: maps for other heads.
        """
        for name, maps, width in (
            ("query_key", None if query_key is None else query_key.key, self.query_key_width),
            ("value", None if value is None else value.value, self.value_width),
        ):
            if maps is not None and (maps.shape[0], maps.shape[2]) != (self.groups, width):
                raise ShapeError(
                    f"the maps {name} {tuple(maps.shape)} are not for G={self.groups} key heads of width {width}."
                )
        narrow = self
        if query_key is not None:
            narrow = replace(
                narrow,
                query=self.query.rows(_mapped(query_key.query, self.heads // self.groups)),
                key=self.key.rows(_mapped(query_key.key, 1)),
                pairs=None if query_key.pairs is None else query_key.pairs.to(self.key.weight.device),
            )
        if value is None:
            return narrow
        return replace(narrow, value=self.value.rows(_mapped(value.value, 1)), output=self._output(value.output))

    def empty(self, *, query_key: int, value: int) -> DenseAttention:
        """Return attention of these widths without values in its weights, on the same device.

        Raises:
            RankError: a width outside those of the heads, or odd for rotary positions.
        """
        check_width(query_key, self.query_key_width, step=1 if self.pairs is None else 2)
        check_width(value, self.value_width)

        def sized(part: Projection, rows: int, columns: int) -> Projection:
            bias = None if part.bias is None else part.bias.new_empty(rows)
            return Projection(part.weight.new_empty(rows, columns), bias)

        D, E, H, G = self.query.weight.shape[1], self.output.weight.shape[0], self.heads, self.groups
        return replace(
            self,
            query=sized(self.query, H * query_key, D),
            key=sized(self.key, G * query_key, D),
            value=sized(self.value, G * value, D),
            output=sized(self.output, E, H * value),
            pairs=None if self.pairs is None else self.pairs[:, : query_key // 2],
        )

    @torch.no_grad()
    def padded(self, *, query_key: int, value: int) -> DenseAttention:
        """Return the same attention with wider heads: zeros in the features that are new.

        Args:
            query_key: width of queries and keys; with rotary positions twice the number of frequencies.
            value: width of values.
        """
        P = query_key // 2
        here = torch.arange(self.query_key_width) if self.pairs is None else torch.cat((self.pairs, self.pairs + P), -1)
        spread = _spread(here.expand(self.groups, -1).to(self.key.weight.device), query_key)
        values = torch.arange(self.value_width, device=self.value.weight.device).expand(self.groups, -1)
        every = None if self.pairs is None else torch.arange(P, device=self.pairs.device).expand(self.groups, -1)
        return replace(
            self,
            query=self.query.rows(_mapped(spread, self.heads // self.groups)),
            key=self.key.rows(_mapped(spread, 1)),
            value=self.value.rows(_mapped(_spread(values, value), 1)),
            output=self._output(_spread(values, value).mT),
            pairs=every,
        )

    def _output(self, maps_GKF: Tensor) -> Projection:
        weight = self.output.weight
        columns = weight.detach().to(torch.float64).reshape(len(weight), self.groups, self.heads // self.groups, -1)
        mixed = torch.einsum("egnk,gkf->egnf", columns, maps_GKF.to(columns))
        return Projection(mixed.flatten(1).to(weight), self.output.bias)


def _mapped(maps_GRK: Tensor, share: int) -> Callable[[Tensor], Tensor]:
    """Return what maps rows (G share K, columns) of whole heads to rows (G share R, columns)."""

    def change(rows: Tensor) -> Tensor:
        heads = rows.reshape(len(maps_GRK), share, -1, rows.shape[1])
        return torch.einsum("grk,gnkd->gnrd", maps_GRK.to(heads), heads).flatten(0, 2)

    return change


def _spread(places_GR: Tensor, width: int) -> Tensor:
    """Return the map (G, width, R) that puts feature r of R at places[r] of `width`."""
    return torch.nn.functional.one_hot(places_GR, width).mT.to(torch.float64)
