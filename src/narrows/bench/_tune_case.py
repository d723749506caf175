"""One signature on a device: its operands, the timers of what runs it, and the check against float64.

x and the result rotate over several copies, so that they come from memory and go to memory; the
factors are read again and again, as a model reads its weights between calls of one layer's kind.
Letters: T tokens, U other tokens, D, E features, R rank, H heads, K sampled rows.
"""

from __future__ import annotations

import math
import statistics
from functools import cached_property, partial
from typing import TYPE_CHECKING, cast

import torch

from narrows import kernels
from narrows._oracle import BilinearOracle, LinearOracle, Reference, worst
from narrows._values import Factors
from narrows.bench._accuracy import sampled_rows
from narrows.bench._timer import Ring, make_timer
from narrows.kernels import tuned
from narrows.kernels.triton._replay import record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from narrows._values import Kind, Mode
    from narrows.bench._timer import Timer
    from narrows.kernels.triton._replay import Replay
    from narrows.kernels.tuned import Config, OwnKernel, Signature

COLD_SETS = 3  # x and the result rotate over 3x the last-level cache
FEWEST_SETS, MOST_SETS = 4, 512
QUICK_SAMPLES = 3


class Case:
    """Operands of one signature and everything that runs on them.

    Args:
        signature: of the call.
        device: to run on.
        cache_bytes: of the last level.
        seed: of the operands.
    """

    def __init__(self, signature: Signature, device: torch.device, *, cache_bytes: int, seed: int = 0) -> None:
        self.signature = signature
        self.device = device
        self.dtype: torch.dtype = getattr(torch, signature.dtype)
        generator = torch.Generator(device).manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        T, U, R = signature.tokens, signature.other_tokens, signature.rank
        lead = (signature.heads,) if signature.heads > 1 else ()
        # Scaled so that projections and results stay near 1, which float16 holds.
        a = (normal(*lead, R, signature.in_features) * signature.in_features**-0.5).to(self.dtype)
        b = normal(*lead, R, signature.out_features)
        b = (b * (R if signature.kind == "linear" else signature.out_features) ** -0.5).to(self.dtype)
        self.factors = Factors(a, b)
        x = normal(T, signature.in_features).to(self.dtype)
        y = normal(U, signature.out_features).to(self.dtype) if U else None
        columns = signature.out_features if signature.kind == "linear" else U or T
        shape = (*lead, T, columns)
        moved = x.nbytes + (0 if y is None else y.nbytes) + math.prod(shape) * x.element_size()
        count = min(max(FEWEST_SETS, math.ceil(COLD_SETS * cache_bytes / moved)), MOST_SETS)
        self._xs = [x.clone() for _ in range(count)]
        self._ys = [None if y is None else y.clone() for _ in range(count)]
        self._outs = [torch.empty(shape, dtype=self.dtype, device=device) for _ in range(count)]

    def cublas_timer(self, mode: Mode) -> Timer:
        """Return the timer of the implementation that own kernels must beat."""
        kernel = kernels.kernel(cast("Kind", self.signature.kind), tuned.cublas(self.signature))
        factors = kernel.pack(self.factors)
        calls = [partial(kernel.run, x, factors, y, out=out) for x, y, out in self._sets()]
        return make_timer(Ring(calls), mode=mode, device=self.device)

    def timer(self, kernel: OwnKernel, config: Config, mode: Mode) -> Timer:
        """Return the timer of an own kernel at these sizes.

        Raises:
            Exception: whatever the compiler or the device says of them.
        """
        factors = kernel.pack(self.factors)
        made = [
            partial(kernel.run_with, config, x, factors, *(() if y is None else (y,)), out=out)
            for x, y, out in self._sets()
        ]
        made[0]()  # compiled before anything is captured
        calls: Sequence[Callable[[], torch.Tensor]] = made
        if mode == "eager" and self.dtype.itemsize == 2:  # public calls of other dtypes are not replayed
            calls = [self._again(call, factors, x, y) for call, (x, y, _) in zip(made, self._sets(), strict=True)]
        return make_timer(Ring(calls), mode=mode, device=self.device)

    @staticmethod
    def _again(
        call: partial[torch.Tensor], factors: Factors, x: torch.Tensor, y: torch.Tensor | None
    ) -> Callable[[], torch.Tensor]:
        """Return the call as the public operations make it from the third time on: replayed, where it can be."""
        operands = [x, factors.a, factors.b, *(() if y is None else (y,))]
        replay = record(partial(call.func, *call.args), operands, tied=(1, 2))[
            1
        ]  # without `out`: a replay has its own result
        return call if replay is None else partial(_replayed, replay, operands)

    def quick_ns(self, kernel: OwnKernel, config: Config) -> float:
        """Return the time of one call within a CUDA graph, the median of few samples."""
        timer = self.timer(kernel, config, "graph")
        return statistics.median(timer.sample()[0] for _ in range(QUICK_SAMPLES))

    def error(self, timer: Timer) -> float:
        """Return the largest |error| / bound of what a timer runs; infinite where an element was not written.

        All memory for results held NaN before. Rows are sampled above 64; every row is looked at for NaN.
        """
        for out in self._outs:
            out.fill_(math.nan)
        result = timer.output()
        if result.isnan().any():
            return math.inf
        return worst(result.index_select(-2, self._rows), self._reference)

    def _sets(self) -> list[tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]]:
        return list(zip(self._xs, self._ys, self._outs, strict=True))

    @cached_property
    def _rows(self) -> torch.Tensor:
        return sampled_rows(self.signature.tokens, 0).to(self.device)

    @cached_property
    def _reference(self) -> Reference:
        x, factors = self._xs[0], self.factors
        if self.signature.kind == "linear":
            return LinearOracle(x[self._rows], factors.a, factors.b).at(factors.rank)
        y = self._ys[0]
        return BilinearOracle(x[self._rows], factors.a, factors.b, x if y is None else y).at(factors.rank)


def _replayed(replay: Replay, operands: Sequence[torch.Tensor]) -> torch.Tensor:
    result = replay(*operands)
    assert result is not None, "operands of a case are aligned and on the current device"
    return result
