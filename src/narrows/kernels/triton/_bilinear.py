"""Bilinear scores on own kernels: projection, the sum of its parts, and the scores with their epilogue.

Letters: T tokens, U other tokens, D, E features, R rank, H heads, S split.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch

from narrows.errors import ImplementationError
from narrows.kernels._epilogue import PLAIN, Epilogue
from narrows.kernels._refusal import wrong_kind
from narrows.kernels._signature import NAMES, bilinear_signature
from narrows.kernels.triton._bilinear_plan import Plan, make_plan
from narrows.kernels.triton._launch import current_stream
from narrows.kernels.triton._operands import Inputs, is_adjacent
from narrows.kernels.triton._support import matmul_precision, unsupported
from narrows.kernels.tuned import config as tuned_config

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Factors, Kind, Problem
    from narrows.kernels._config import Config

# Plans kept: a model of 32 layers at 32 lengths. One holds a few hundred bytes; the oldest goes first.
MOST_PLANS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class BilinearTriton:
    """s_TU = (x a^T)(y b^T)^T, [a; b] read with one x where they are interleaved; sums and epilogue in float32.

    Launches: one projection (two where y is not x or the factors are not interleaved), above
    split = 1 the sum of the parts, and the scores. Allocates the result, the projections and the
    parts. Deterministic: parts are added in fixed order, nothing is accumulated by atomics, so
    torch.use_deterministic_algorithms asks for nothing more. Not differentiable by itself.
    """

    name: str = "triton"
    kind: Kind = "bilinear"
    _plans: dict[tuple[Any, ...], Plan] = field(default_factory=dict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def refuses(self, problem: Problem) -> str:
        """Return why it cannot run this problem; empty when it can."""
        return wrong_kind(self, problem) or unsupported(problem.dtype, problem.device)

    def launches(self, problem: Problem) -> int:
        """Return the kernels of a chain without a split: 2 for Y = X, else 3. A split adds one."""
        return 2 if problem.is_self else 3

    def pack(self, factors: Factors) -> Factors:
        """Return the factors interleaved where D = E (see `Factors.pair`); a copy only where they are not."""
        return factors.interleaved() if factors.in_features == factors.out_features else factors

    def run(self, x: Tensor, factors: Factors, y: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
        """Return the scores, (..., [H,] T, U), with the sizes that were tuned for this call."""
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
        """Return the finished scores, (..., [H,] T, U).

        Args:
            config: sizes of the launches.
            x: (..., T, D), any strides; what has no unit inner stride and one stride of rows is copied.
            factors: from `pack` where Y = X is to read x once; any strides.
            y: (..., U, E); None: Y = X.
            epilogue: what is done to the scores before they are rounded, once.
            out: contiguous, receives the result.

        Raises:
            ImplementationError: x or y differs by head; the device or the dtype is not one it runs on.
        """
        inputs = Inputs(x, factors.a, factors.b, y, epilogue.mask)
        plan = self._plan(config, inputs, epilogue)
        if out is None:
            out = x.new_empty(plan.shape)
        if plan.is_empty:
            return out
        if x.is_cuda and x.device.index != torch.cuda.current_device():
            with torch.cuda.device(x.device):
                _launch(plan, inputs, out)
        else:
            _launch(plan, inputs, out)
        return out

    def project_with(self, config: Config, x: Tensor, factors: Factors) -> tuple[Tensor, Tensor]:
        """Return p = x a^T and q = x b^T, (T, R) each, as views of one (T, 2R) block; on the current device.

        Args:
            config: `project` and `overlap` are read.
            x: (T, D).
            factors: interleaved, without heads.
        """
        inputs = Inputs(x, factors.a, factors.b, None, None)
        plan = self._plan(config, inputs, PLAIN)
        if True in plan.copies:
            inputs = _copies(plan, inputs)
        both = _project(plan, inputs, current_stream(x.device)).view(x.shape[0], 2 * factors.rank)
        return both[:, : factors.rank], both[:, factors.rank :]

    def _plan(self, config: Config, inputs: Inputs, epilogue: Epilogue) -> Plan:
        x, a, b, y, mask = inputs
        key = (
            config, x.dtype, x.device, x.shape, x.stride(), a.shape, a.stride(), b.shape, b.stride(),
            is_adjacent(a, b) if y is None else (y.shape, y.stride()),
            epilogue.scale, epilogue.softcap, epilogue.is_causal,
            mask if mask is None else (mask.shape, mask.stride(), mask.dtype),
            x.dtype == torch.float32 and matmul_precision(x.dtype),
        )  # fmt: skip
        plan = self._plans.get(key)
        if plan is None:
            plan = self._make(config, inputs, epilogue)
            with self._lock:
                if len(self._plans) >= MOST_PLANS:
                    del self._plans[next(iter(self._plans))]
                self._plans[key] = plan
        return plan

    def _make(self, config: Config, inputs: Inputs, epilogue: Epilogue) -> Plan:
        x = inputs.x
        if reason := unsupported(NAMES.get(x.dtype, str(x.dtype)), str(x.device)):
            raise ImplementationError(f"impl={self.name!r} cannot run this: {reason}.")
        return make_plan(config, inputs, epilogue)


def _launch(plan: Plan, inputs: Inputs, out: Tensor) -> None:
    """Launch the chain on the current device and its current stream."""
    if True in plan.copies:
        inputs = _copies(plan, inputs)
    stream = current_stream(out.device)
    buffer = _project(plan, inputs, stream)
    assert plan.scores is not None
    plan.scores(stream, buffer, buffer[plan.offset :], None, inputs.mask, None, out)


def _project(plan: Plan, inputs: Inputs, stream: int) -> Tensor:
    """Return the buffer of projections, p then q."""
    x = inputs.x
    buffer = torch.empty(plan.size, dtype=x.dtype, device=x.device)
    parts = torch.empty(plan.parts, dtype=torch.float32, device=x.device) if plan.parts else None
    target = buffer if parts is None else parts
    assert plan.project_x is not None
    plan.project_x(stream, x, inputs.a, target)
    if plan.project_y is not None:
        plan.project_y(stream, inputs.other, inputs.b, target[plan.offset :])
    if plan.reduce is not None:
        plan.reduce(stream, parts, None, buffer)
    return buffer


def _copies(plan: Plan, inputs: Inputs) -> Inputs:
    """Return the inputs, those copied that the plan wants copied."""
    x, a, b, y, mask = inputs
    copies_x, copies_a, copies_b, copies_y, copies_mask = plan.copies
    if copies_x:
        x = _expanded(x, plan.x_lead, inputs.heads).contiguous()
    if y is not None and copies_y:
        y = _expanded(y, plan.y_lead, inputs.heads).contiguous()
    if mask is not None and copies_mask:
        mask = mask.expand(plan.shape).contiguous()
    return Inputs(x, a.contiguous() if copies_a else a, b.contiguous() if copies_b else b, y, mask)


def _expanded(tensor: Tensor, lead: tuple[int, ...] | None, heads: int) -> Tensor:
    """Return x or y with these leading dimensions, which leave out that of the heads; None: as it is."""
    if lead is None:
        return tensor
    return (tensor.squeeze(-3) if heads > 1 and tensor.ndim > 2 else tensor).expand(lead)
