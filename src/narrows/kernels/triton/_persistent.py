"""Bilinear scores whose second matmul is a persistent kernel; cuBLAS or an own kernel projects (Hopper, 16-bit).

Letters: T tokens, U other tokens, D, E features, R rank, B product of leading dimensions.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from narrows.errors import ImplementationError
from narrows.kernels._epilogue import PLAIN, Epilogue
from narrows.kernels._refusal import wrong_kind
from narrows.kernels._signature import bilinear_signature
from narrows.kernels.triton._bilinear import BilinearTriton
from narrows.kernels.triton._launch import ALIGNMENT, current_stream
from narrows.kernels.triton._persistent_scores import PersistentConfig as PersistentConfig
from narrows.kernels.triton._persistent_scores import launch_scores as launch_scores
from narrows.kernels.triton._support import is_interpreted, order, unsupported
from narrows.kernels.tuned import config as tuned_config

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Factors, Kind, Problem
    from narrows.kernels._config import Config, Tiles

GRANULE = ALIGNMENT // 2  # tokens: TMA reads and writes rows that lie a multiple of 16 bytes apart
LARGEST_RANK = 256  # above, the matmul takes longer than the write that it hides behind
TILES = (64, 256)  # a wgmma instruction takes 64 rows; TMA boxes and wgmma take 256 at most
MAJOR = 9  # wgmma exists on Hopper only


@lru_cache(maxsize=1024)
def persistent_config(tiles: Tiles, rank: int) -> PersistentConfig:
    """Return the scores kernel's sizes from `tiles`: its tile, warps, Q tiles in flight, programs (split).

    What `tiles` does not say, staging buffers and P tiles held, is what fits a multiprocessor's shared memory;
    where one of each does not fit, fewer Q tiles are in flight.
    """
    m, n = (min(max(size, TILES[0]), TILES[1]) for size in (tiles.m, tiles.n))
    found = [
        PersistentConfig(
            m=m, n=n, stages=stages, staging=staging, p_buffers=held, warps=max(tiles.warps, 4), programs=tiles.split
        )
        for stages in range(tiles.stages, 0, -1)
        for staging, held in ((2, 2), (2, 1), (1, 2), (1, 1))
    ]
    return next((config for config in found if config.fits(rank)), found[-1])


@lru_cache(maxsize=64)
def refuses_device(device: str) -> str:
    """Return why no device code for Hopper runs there; empty when it does. "meta" is not refused."""
    if is_interpreted():
        return "gluon has no interpreter: it needs a CUDA device"
    if device == "meta":
        return ""
    major, minor = torch.cuda.get_device_capability(device)
    return "" if major == MAJOR else f"gluon needs compute capability {MAJOR} (Hopper); {device} has {major}.{minor}"


@dataclass(frozen=True, slots=True, eq=False)
class BilinearPersistent:
    """s_TU = (x a^T)(y b^T)^T: projected once where Y = X and [a; b] is interleaved, one kernel does the rest.

    For long sequences at low rank, where writing the scores takes most of the time. Deterministic. Not
    differentiable by itself.

    Attributes:
        granule: T and U must be multiples of it.
        own: makes the projection where no cuBLAS does.
    """

    name: str = "gluon"
    kind: Kind = "bilinear"
    granule: int = GRANULE
    own: BilinearTriton = field(default_factory=BilinearTriton, repr=False)

    def refuses(self, problem: Problem) -> str:
        """Return why it cannot run this problem; empty when it can."""
        if reason := wrong_kind(self, problem):
            return reason
        if reason := unsupported(problem.dtype, problem.device) or refuses_device(problem.device):
            return reason
        if problem.dtype not in {"bfloat16", "float16"}:
            return f"gluon runs bfloat16 and float16; here dtype={problem.dtype}"
        if problem.heads > 1:
            return f"gluon computes one matrix of scores; here there are H={problem.heads} heads"
        for letter, size in (("T", problem.tokens), ("U", problem.columns)):
            if size % GRANULE:
                return f"gluon needs a multiple of {GRANULE} tokens; here {letter}={size}"
        return ""

    def refuses_call(self, x: Tensor, factors: Factors, y: Tensor | None = None, epilogue: Epilogue = PLAIN) -> str:
        """Return what a `Problem` does not show and yet cannot be run; empty when there is nothing."""
        if factors.rank > LARGEST_RANK:
            return f"gluon runs ranks up to {LARGEST_RANK}; here R={factors.rank}"
        if factors.a.ndim != 2:
            return f"gluon computes one matrix of scores; here a {tuple(factors.a.shape)} has heads"
        if epilogue.mask is not None or epilogue.softcap is not None:
            return "gluon scales and masks causally only; here is a mask or a softcap"
        if y is not None and y.shape[:-2] != x.shape[:-2]:
            return f"x {tuple(x.shape)} and y {tuple(y.shape)} need the same leading dimensions"
        for letter, tensor in (("T", x), ("U", x if y is None else y)):
            if tensor.shape[-2] % GRANULE:
                return f"gluon needs a multiple of {GRANULE} tokens; here {letter}={tensor.shape[-2]}"
        return ""

    def launches(self, problem: Problem) -> int:
        """Return 2 for Y = X (interleaved factors), else 3; a split projection adds one for each projection."""
        return 2 if problem.is_self else 3

    def pack(self, factors: Factors) -> Factors:
        """Return the factors interleaved where D = E (see `Factors.pair`); a copy only where they are not."""
        return factors.interleaved() if factors.in_features == factors.out_features else factors

    def run(self, x: Tensor, factors: Factors, y: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
        """Return the scores, (..., T, U), with the sizes that were tuned for this call."""
        config = tuned_config(self.name, bilinear_signature(x, factors.a, factors.b, y))
        return self.run_with(config, x, factors, y, out=out)

    def run_with(
        self,
        config: Config,
        x: Tensor,
        factors: Factors,
        y: Tensor | None = None,
        *,
        epilogue: Epilogue = PLAIN,
        out: Tensor | None = None,
    ) -> Tensor:
        """Return the finished scores, (..., T, U).

        Args:
            config: `second` as in `persistent_config`; overlap other than "none" lets the scores kernel start while
                the projection drains. `project` and "all" are for an own projection, which there is where Y = X, the
                factors are interleaved and 8 divides the rank; else, or as `projection` says, cuBLAS projects.
            x: (..., T, D).
            factors: from `pack` where Y = X is to read x once; any strides.
            y: (..., U, E); None: Y = X.
            epilogue: scale and causal mask.
            out: contiguous, receives the result.

        Raises:
            ImplementationError: see `refuses_call`.
        """
        if reason := self.refuses_call(x, factors, y, epilogue):
            raise ImplementationError(f"impl={self.name!r} cannot run this: {reason}.")
        if out is None:
            out = x.new_empty(*x.shape[:-1], (x if y is None else y).shape[-2])
        if out.numel():
            is_current = x.device.index == torch.cuda.current_device()
            with nullcontext() if is_current else torch.cuda.device(x.device):
                p, q = self._project(config, x, factors, y)
                _launch(config, p, q, out, epilogue)
        return out

    def _project(self, config: Config, x: Tensor, factors: Factors, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return p (BT, R) and q (BU, R); own kernels read one x for both, cuBLAS anything."""
        is_own = config.projection == "own" and y is None and factors.pair is not None
        if not is_own or factors.rank % GRANULE:  # q begins R elements into a row: TMA wants 16 bytes or a multiple
            return project_across(x, factors, y)
        return self.own.project_with(config, x.reshape(-1, x.shape[-1]), factors)


def _launch(config: Config, p: Tensor, q: Tensor, out: Tensor, epilogue: Epilogue) -> None:
    """Launch the scores of each batch on the current device and its current stream."""
    T, U = out.shape[-2:]
    sizes = persistent_config(config.second, p.shape[1])
    stream = current_stream(out.device)
    for batch, scores in enumerate(out.view(-1, T, U)):
        launch_scores(
            p[batch * T : (batch + 1) * T],
            q[batch * U : (batch + 1) * U],
            scores,
            config=sizes,
            scale=epilogue.scale,
            causal=epilogue.is_causal,
            overlap=order(config.overlap, out.device, is_first=False),
            stream=stream,
        )


def project_across(x: Tensor, factors: Factors, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return p (BT, R) and q (BU, R), by cuBLAS, as views of p^T and q^T: wgmma reads them as they lie.

    Projected this way round, one matmul of interleaved factors gives both: p^T in its even rows, q^T in its odd
    ones. (x [a; b]^T would give columns in turn, and TMA needs a unit inner stride.)
    """
    x_TD = x.reshape(-1, x.shape[-1])
    pair = factors.pair if y is None else None
    if pair is None:
        y_UE = x_TD if y is None else y.reshape(-1, y.shape[-1])
        return torch.mm(factors.a, x_TD.t()).t(), torch.mm(factors.b, y_UE.t()).t()
    rank, tokens = factors.rank, x_TD.shape[0]
    both = torch.mm(pair.view(2 * rank, factors.in_features), x_TD.t())
    return both.as_strided((tokens, rank), (1, 2 * tokens)), both.as_strided((tokens, rank), (1, 2 * tokens), tokens)
