"""pivot_linear: values, gradients, and what torch does with it."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional

from narrows import _values
from narrows.ops import pivot_linear

D, E, R = 5, 7, 3


def leaf(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def order_of(size=E, seed=1):
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def operands(rank=R, lead=(4,)):
    return leaf(*lead, D), leaf(rank, D), leaf(E - rank, rank), torch.argsort(order_of()), leaf(E)


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize("rank", [1, R, E])
def test_the_value_is_that_of_the_weight_the_form_stands_for(lead, rank):
    x, rows, rest, inverse_order, bias = operands(rank, lead)
    weight = _values.PivotFactors(rows, rest, order_of()).dense()
    y = pivot_linear(x, rows, rest, inverse_order, bias)
    assert y.shape == (*lead, E)
    assert torch.allclose(y, functional.linear(x, weight, bias), rtol=1e-13, atol=1e-13)


def test_another_order_gives_another_value():
    x, rows, rest, inverse_order, _ = operands()
    right = pivot_linear(x, rows, rest, inverse_order)
    assert not torch.allclose(right, pivot_linear(x, rows, rest, order_of(), None), rtol=1e-3)


@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_of_every_operand_are_the_finite_differences(with_bias):
    x, rows, rest, inverse_order, bias = operands(lead=(2, 2))
    given = (x, rows, rest, inverse_order, bias if with_bias else None)
    assert gradcheck(pivot_linear, given)


def test_the_bias_is_left_as_it_was():
    *rest_of_them, bias = operands()
    before = bias.detach().clone()
    with torch.no_grad():
        pivot_linear(*rest_of_them, bias)
    assert torch.equal(bias, before)


def test_an_order_of_another_length_is_refused_by_torch():
    x, rows, rest, inverse_order, _ = operands()
    with pytest.raises(RuntimeError, match="expand"):
        pivot_linear(x, rows, rest, inverse_order[:-1])


def test_autocast_gives_what_it_gives_for_linear():
    x, rows, rest, inverse_order, bias = (t.detach().float() if t.is_floating_point() else t for t in operands())
    with torch.autocast("cpu", torch.bfloat16):
        y = pivot_linear(x, rows, rest, inverse_order, bias)
        wanted = functional.linear(x, torch.randn(E, D), bias)
    assert y.dtype == wanted.dtype == torch.bfloat16


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name, tensor in zip(("rows", "rest", "inverse_order", "bias"), operands()[1:], strict=True):
            self.register_buffer(name, tensor.detach())

    def forward(self, x):
        return pivot_linear(x, self.rows, self.rest, self.inverse_order, self.bias)


def test_one_graph_is_traced_for_any_number_of_tokens():
    x, layer = operands()[0].detach(), Layer()
    exported = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("T", min=2)},))
    longer = torch.cat((x, x, x))
    assert torch.allclose(exported.module()(longer), layer(longer), rtol=1e-13, atol=1e-13)
