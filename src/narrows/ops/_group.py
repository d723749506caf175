"""Several factors that read the same x: q, k, v; gate and up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.ops._checks import check_factors, check_gated, check_group
from narrows.ops._group_op import gated_op, group_op
from narrows.ops._library import AUTO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from narrows._values import Factors


def linear_group(
    x: Tensor, factors: Sequence[Factors], biases: Sequence[Tensor | None] | None = None, *, impl: str = AUTO
) -> tuple[Tensor, ...]:
    """Return (x a^T) b + bias of every member, each (..., T, E) with an E of its own, as one operation.

    For layers that read the same x, such as an attention block's q, k and v. Factors from
    `narrows.stack` are projected with one matmul that reads x once; others with one matmul each.
    Differentiable in every tensor, and in torch's machinery as `linear`.

    Args:
        x: (..., T, D); zero tokens are valid.
        factors: at least one; each a (R, D), b (R, E) with an R and E of its own, without heads.
        biases: one for each member, (E,) or None; None: no member has one.
        impl: "auto" (on a CPU "two", on a CUDA device the fastest one measured), or an
            implementation's name; a named one never falls back.

    Raises:
        ShapeError, DtypeError, DeviceError: operands do not fit together, or factors have heads.
        InputError: no factors, what is no Factors, or another number of biases.
        ImplementationError: the named implementation does not exist or cannot run this.
    """
    check_group(x, factors, biases)
    every = [None] * len(factors) if biases is None else list(biases)
    given = [bias for bias in every if bias is not None]
    has_bias = [bias is not None for bias in every]
    return tuple(group_op(x, [f.a for f in factors], [f.b for f in factors], given, has_bias, impl))


def gated_linear(
    x: Tensor,
    gate: Factors,
    up: Factors,
    gate_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    *,
    activation: str | None = "silu",
    impl: str = AUTO,
) -> Tensor:
    """Return activation(x gate + gate_bias) * (x up + up_bias), (..., T, E), as one operation.

    With "silu" the first half of a SwiGLU block. Own kernels never write the two wide
    intermediates. Factors from `narrows.stack((gate, up))` are projected with one matmul.
    Differentiable in every tensor, and in torch's machinery as `linear`.

    Args:
        x: (..., T, D); zero tokens are valid.
        gate, up: a (R, D), b (R, E) without heads: the same E, each an R of its own.
        gate_bias, up_bias: (E,).
        activation: None, "relu", "silu", "gelu" (exact) or "gelu_tanh".
        impl: as in `linear_group`.

    Raises:
        ShapeError, DtypeError, DeviceError: operands do not fit together, or factors have heads.
        InputError: what is no Factors, or no such activation.
        ImplementationError: the named implementation does not exist or cannot run this.
    """
    check_factors(gate)
    check_factors(up)
    check_gated(x, gate, up, gate_bias, up_bias, activation)
    return gated_op(x, gate.a, gate.b, up.a, up.b, gate_bias, up_bias, activation, impl)  # type: ignore[no-any-return]
