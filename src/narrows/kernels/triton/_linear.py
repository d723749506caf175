"""The linear chain on own kernels: projection, the sum of its parts, and the expansion with its epilogue.

Letters: T tokens, D input, E output features, R rank.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch

from narrows.errors import ImplementationError
from narrows.kernels._linear_epilogue import LinearEpilogue
from narrows.kernels._refusal import wrong_kind
from narrows.kernels._signature import NAMES, linear_signature
from narrows.kernels.triton._launch import current_stream
from narrows.kernels.triton._linear_operands import LinearOperands
from narrows.kernels.triton._linear_plan import Plan, make_plan
from narrows.kernels.triton._support import matmul_precision, unsupported
from narrows.kernels.tuned import config as tuned_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from narrows._values import Factors, Kind, Problem
    from narrows.kernels._config import Config
    from narrows.kernels.triton._linear_plan import Form

# Plans kept: a model of 32 layers at 32 lengths. One holds a few hundred bytes; the oldest goes first.
MOST_PLANS = 1024
PLAIN = LinearEpilogue()


@dataclass(frozen=True, slots=True, eq=False)
class LinearTriton:
    """y_TE = act((x_TD a_RD^T + middle_bias) b_RE + bias) + residual; sums and epilogue in float32.

    Launches: the projection, the sum of its parts (above split = 1 unless the expansion adds them as it
    loads them; always for a middle bias, which it adds) and the expansion. Allocates the result, the
    projection and its parts. Deterministic: parts are added in fixed order, nothing is accumulated by
    atomics. Not differentiable by itself. b may be (R, E) or a view of up.weight (E, R): any strides.
    """

    name: str = "triton"
    kind: Kind = "linear"
    _plans: dict[tuple[Any, ...], Plan] = field(default_factory=dict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def refuses(self, problem: Problem) -> str:
        """Return why it cannot run this problem; empty when it can."""
        if reason := wrong_kind(self, problem) or unsupported(problem.dtype, problem.device):
            return reason
        return "" if problem.heads == 1 else f"triton runs linear chains without heads; here H={problem.heads}"

    def launches(self, problem: Problem) -> int:  # noqa: ARG002 (of the protocol)
        """Return 2: the kernels of a chain without a split. A split adds one, unless it is added on load."""
        return 2

    def pack(self, factors: Factors) -> Factors:
        """Return the factors as they are: only an `a` without unit inner stride is copied, in each call."""
        return factors

    def run(
        self,
        x: Tensor,
        factors: Factors,
        y: Tensor | None = None,  # noqa: ARG002 (of the protocol)
        *,
        out: Tensor | None = None,
        bias: Tensor | None = None,
        middle_bias: Tensor | None = None,
        residual: Tensor | None = None,
        activation: str | None = None,
    ) -> Tensor:
        """Return what `LinearTwo.run` does, with the sizes that were tuned for this call."""
        operands = LinearOperands(x, (factors.a,), (factors.b,), (bias,), middle_bias, residual)
        return self._run_tuned("linear", operands, activation, out)[0]

    def run_with(
        self,
        config: Config,
        x: Tensor,
        factors: Factors,
        *,
        epilogue: LinearEpilogue = PLAIN,
        out: Tensor | None = None,
    ) -> Tensor:
        """Return the finished result, (..., T, E).

        Args:
            config: sizes of the launches.
            x: (..., T, D); copied only where its rows have no unit inner stride, or no one stride walks through them.
            factors: a (R, D), b (R, E), or with one head (1, R, D) and (1, R, E).
            epilogue: what is done before the result is rounded, once.
            out: contiguous, receives the result.

        Raises:
            ImplementationError: factors with more than one head; a device or dtype it does not run on.
        """
        operands = LinearOperands(
            x, (factors.a,), (factors.b,), (epilogue.bias,), epilogue.middle_bias, epilogue.residual
        )
        return self._run("linear", config, operands, epilogue.activation, out)[0]

    def run_group(self, x: Tensor, factors: Sequence[Factors], biases: Sequence[Tensor | None]) -> list[Tensor]:
        """Return (x a^T) b + bias of every member, (..., T, E), with the sizes tuned for this call."""
        return self._run_tuned("group", _group_operands(x, factors, biases))

    def run_group_with(
        self, config: Config, x: Tensor, factors: Sequence[Factors], biases: Sequence[Tensor | None]
    ) -> list[Tensor]:
        """Return (x a^T) b + bias of every member: one projection for stacked factors, one expansion for three.

        Args:
            config: sizes of the launches.
            x: (..., T, D).
            factors: each a (R, D), b (R, E) without heads.
            biases: (E,) or None for each member.
        """
        return self._run("group", config, _group_operands(x, factors, biases))

    def run_gated(
        self,
        x: Tensor,
        gate: Factors,
        up: Factors,
        *,
        gate_bias: Tensor | None = None,
        up_bias: Tensor | None = None,
        activation: str | None = "silu",
    ) -> Tensor:
        """Return activation(x gate + gate_bias) * (x up + up_bias), (..., T, E), with the sizes tuned for this call."""
        operands = LinearOperands(x, (gate.a, up.a), (gate.b, up.b), (gate_bias, up_bias))
        return self._run_tuned("gated", operands, activation)[0]

    def run_gated_with(
        self,
        config: Config,
        x: Tensor,
        gate: Factors,
        up: Factors,
        *,
        biases: tuple[Tensor | None, Tensor | None] = (None, None),
        activation: str | None = "silu",
    ) -> Tensor:
        """Return activation(x gate + gate bias) * (x up + up bias), (..., T, E), rounded once.

        Args:
            config: sizes of the launches.
            x: (..., T, D).
            gate, up: a (R, D), b (R, E) without heads, of the same E.
            biases: of gate and of up, (E,).
            activation: None or one of ACTIVATIONS.
        """
        operands = LinearOperands(x, (gate.a, up.a), (gate.b, up.b), biases)
        return self._run("gated", config, operands, activation)[0]

    def _run_tuned(
        self, form: Form, operands: LinearOperands, activation: str | None = None, out: Tensor | None = None
    ) -> list[Tensor]:
        """Return the results of a form with the sizes tuned for this call.

        The first eager call on a device also runs the sizes of a captured one: while a graph is
        captured nothing can be compiled.
        """
        signature = linear_signature(operands.x, operands.a, operands.b)
        config = tuned_config(self.name, signature)
        plan, is_new = self._plan(form, config, operands, activation)
        results = _launch(plan, operands, out)
        if is_new and operands.x.is_cuda and signature.mode == "eager":
            # Sizes that fail their check, or do not fit: a captured call says so itself.
            with suppress(ImplementationError, torch.OutOfMemoryError):
                captured = tuned_config(self.name, signature._replace(mode="graph"))
                if captured != config:
                    self._run(form, captured, operands, activation)
        return results

    def _run(
        self,
        form: Form,
        config: Config,
        operands: LinearOperands,
        activation: str | None = None,
        out: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the results of a form; `out` receives the only one."""
        plan, _ = self._plan(form, config, operands, activation)
        return _launch(plan, operands, out)

    def _plan(self, form: Form, config: Config, operands: LinearOperands, activation: str | None) -> tuple[Plan, bool]:
        """Return the plan for these layouts, and whether this is their first call."""
        x = operands.x
        precision = matmul_precision(x.dtype) if x.dtype == torch.float32 else ""
        key = (form, config, x.dtype, x.device, activation, precision, *operands.layouts())
        plan = self._plans.get(key)
        if plan is not None:
            return plan, False
        if reason := unsupported(NAMES.get(x.dtype, str(x.dtype)), str(x.device)):
            raise ImplementationError(f"impl={self.name!r} cannot run this: {reason}.")
        plan = make_plan(form, config, operands, activation)
        with self._lock:
            if len(self._plans) >= MOST_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = plan
        return plan, True


def _launch(plan: Plan, operands: LinearOperands, out: Tensor | None) -> list[Tensor]:
    """Return the results of a plan's launches; `out` receives the only one."""
    x = operands.x
    outs = [x.new_empty(shape) for shape in plan.shapes] if out is None else [out]
    if not plan.tokens:
        return outs
    if x.is_cuda and x.device.index != torch.cuda.current_device():
        with torch.cuda.device(x.device):
            plan.launch(current_stream(x.device), operands, outs)
    else:
        plan.launch(current_stream(x.device), operands, outs)
    return outs


def _group_operands(x: Tensor, factors: Sequence[Factors], biases: Sequence[Tensor | None]) -> LinearOperands:
    return LinearOperands(x, tuple(f.a for f in factors), tuple(f.b for f in factors), tuple(biases))
