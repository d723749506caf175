"""How an own kernel chain is launched: the sizes that tuning chooses among."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Overlap = Literal["none", "last", "all", "early"]
Reduce = Literal["kernel", "load"]
Projector = Literal["own", "cublas"]


@dataclass(frozen=True, slots=True)
class Tiles:
    """One kernel's launch sizes.

    Attributes:
        m, n, k: rows, columns and inner elements of one program's tile.
        split: programs that share one tile's inner dimension, each adding a partial sum.
        warps: warps of a program.
        stages: depth of the software pipeline over the inner dimension.
    """

    m: int
    n: int
    k: int
    split: int = 1
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True, slots=True)
class Config:
    """One way to launch a chain: projection, then its second matmul.

    Attributes:
        project: x [a; b]^T. Above split=1 the partial sums are added by a kernel of their own, in
            fixed order.
        second: scores P Q^T, or the expansion P B.
        overlap: which launches may start while the kernel before them drains (programmatic
            dependent launch, Hopper and later): "none", "last" (all but the first), "all", or "early":
            all, and each lets the next one start before it waits itself.
        reduce: how a split projection's partial sums are added: by a kernel of their own, or by the
            second kernel as it loads them, which saves a launch where tokens are few.
        projection: by an own kernel of the sizes in `project`, or by "cublas" ("gluon" only).
    """

    project: Tiles
    second: Tiles
    overlap: Overlap = "none"
    reduce: Reduce = "kernel"
    projection: Projector = "own"
