"""Gradients of the linear chains, in differentiable torch operations, so that second derivatives work too.

With G the gradient of y = act(z) + residual, z = P b + bias, P = x a^T + middle_bias:
    dz = G act'(z);  dP = dz b^T;  db = P^T dz;  dx = dP a;  da = dP^T x
    h = act(z_gate) z_up:   dz_gate = act'(z_gate) G z_up;  dz_up = G act(z_gate)
P and z are computed again: keeping them would need further results of the operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from narrows.kernels import activate_, activation_gradient, project
from narrows.ops._gradients import projection_gradients, token_sum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Gradients = tuple[Any, ...]


def keep_linear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 (torch's signature)
    """Keep what `linear_gradients` reads."""
    x, a, b, bias, middle_bias, _, activation, _ = inputs
    ctx.save_for_backward(x, a, b, bias if activation else None, middle_bias)
    ctx.activation, ctx.bias_shape = activation, b.shape[-1:]


def linear_gradients(ctx: Any, grad: Tensor) -> Gradients:
    """Return the gradients of (x, a, b, bias, middle_bias, residual, activation, impl)."""
    x, a, b, bias, middle_bias = ctx.saved_tensors
    needs_x, needs_a, needs_b, needs_bias, needs_middle, needs_residual, *_ = ctx.needs_input_grad
    residual_grad = grad if needs_residual else None
    p = _shifted(project(x, a), middle_bias) if needs_b or ctx.activation else x
    if ctx.activation:
        grad = activation_gradient(grad, _shifted(p @ b, bias), ctx.activation)
    dx = da = dmiddle = None
    if needs_x or needs_a or needs_middle:
        dp = grad @ b.mT
        dx, da = projection_gradients(dp, x, a, needs_x=needs_x, needs_weight=needs_a)
        dmiddle = dp.sum_to_size(a.shape[-2:-1]) if needs_middle else None
    db = token_sum(p, grad, b) if needs_b else None
    dbias = grad.sum_to_size(ctx.bias_shape) if needs_bias else None
    return dx, da, db, dbias, dmiddle, residual_grad, None, None


def keep_group(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:  # noqa: ARG001
    """Keep what `group_gradients` reads."""
    x, a, b, biases, has_bias, _ = inputs
    ctx.save_for_backward(x, *a, *b)
    ctx.has_bias, ctx.num_biases = has_bias, len(biases)


def group_gradients(ctx: Any, grads: Sequence[Tensor]) -> Gradients:
    """Return the gradients of (x, a, b, biases, has_bias, impl)."""
    x, *weights = ctx.saved_tensors
    half = len(weights) // 2
    needs_x, needs_a, needs_b, *_ = ctx.needs_input_grad
    members = [
        _member_gradients(grad, x, a, b, needs=(needs_x, needs_a[i], needs_b[i]))
        for i, (grad, a, b) in enumerate(zip(grads, weights[:half], weights[half:], strict=True))
    ]
    dbiases = [
        grad.sum_to_size(b.shape[-1:]) for grad, b, has in zip(grads, weights[half:], ctx.has_bias, strict=True) if has
    ]
    return _total(m[0] for m in members), [m[1] for m in members], [m[2] for m in members], dbiases, None, None


def keep_gated(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    """Keep what `gated_gradients` reads."""
    *tensors, activation, _ = inputs
    ctx.save_for_backward(*tensors)
    ctx.activation = activation


def gated_gradients(ctx: Any, grad: Tensor) -> Gradients:
    """Return the gradients of (x, gate_a, gate_b, up_a, up_b, gate_bias, up_bias, activation, impl)."""
    x, gate_a, gate_b, up_a, up_b, gate_bias, up_bias = ctx.saved_tensors
    needs_x, *needs = ctx.needs_input_grad
    opening = _shifted(project(x, gate_a) @ gate_b, gate_bias)
    values = _shifted(project(x, up_a) @ up_b, up_bias)
    d_opening = activation_gradient(grad * values, opening, ctx.activation)
    d_values = grad * activate_(opening.clone(), ctx.activation)
    gate_dx, gate_da, gate_db = _member_gradients(d_opening, x, gate_a, gate_b, needs=(needs_x, needs[0], needs[1]))
    up_dx, up_da, up_db = _member_gradients(d_values, x, up_a, up_b, needs=(needs_x, needs[2], needs[3]))
    gate_dbias = d_opening.sum_to_size(gate_b.shape[-1:]) if needs[4] else None
    up_dbias = d_values.sum_to_size(up_b.shape[-1:]) if needs[5] else None
    return _total((gate_dx, up_dx)), gate_da, gate_db, up_da, up_db, gate_dbias, up_dbias, None, None


def _member_gradients(
    grad: Tensor, x: Tensor, a: Tensor, b: Tensor, *, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, a and b for (x a^T) b."""
    needs_x, needs_a, needs_b = needs
    dx = da = None
    if needs_x or needs_a:
        dx, da = projection_gradients(grad @ b.mT, x, a, needs_x=needs_x, needs_weight=needs_a)
    return dx, da, token_sum(project(x, a), grad, b) if needs_b else None


def _shifted(values: Tensor, bias: Tensor | None) -> Tensor:
    return values if bias is None else values + bias


def _total(grads: Any) -> Tensor | None:
    given = [grad for grad in grads if grad is not None]
    return sum(given[1:], given[0]) if given else None
