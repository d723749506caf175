"""What a call asks about before an implementation is chosen for it."""

from __future__ import annotations

import pytest
import torch

import narrows
from narrows import Factors
from narrows.ops import _attention_gradients, _linear_choice
from narrows.ops._bilinear_choice import _is_batched


@pytest.mark.parametrize(
    ("x", "y", "is_batched"),
    [
        ((7, 12), None, False),
        ((1, 7, 12), None, False),
        ((1, 1, 7, 12), (7, 12), False),
        ((2, 7, 12), None, True),
        ((7, 12), (2, 7, 12), True),
        ((0, 7, 12), None, False),
    ],
)
def test_more_than_one_x_or_y_is_a_batch(x, y, is_batched):
    assert _is_batched(torch.zeros(x), None if y is None else torch.zeros(y)) is is_batched


def test_a_named_implementation_is_asked_about_the_sizes_of_every_member(monkeypatch):
    asked, kernel = [], _linear_choice.kernel

    def recorded(kind, impl, problem):
        asked.append((problem.tokens, problem.in_features, problem.out_features, problem.heads))
        return kernel(kind, impl, problem)

    monkeypatch.setattr(_linear_choice, "kernel", recorded)
    _linear_choice._named.cache_clear()
    members = [Factors(torch.zeros(3, 12), torch.zeros(3, 5)), Factors(torch.zeros(4, 3, 12), torch.zeros(4, 3, 17))]
    _linear_choice.linear_kernel("two", torch.zeros(2, 7, 12), [f.a for f in members], [f.b for f in members])
    assert asked == [(14, 12, 5, 1), (14, 12, 17, 4)]


class Untouched:
    def run(self, *_, **__):
        raise AssertionError("the scores were held")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_gradient_of_one_operand_does_not_hold_the_scores(monkeypatch, place):
    operands = [torch.randn(1, 2, 5, 4) for _ in range(3)]
    operands[place].requires_grad_()
    result = narrows.attend(*operands, scale=0.5)
    monkeypatch.setattr(_attention_gradients, "ATTENTION_MATH", Untouched())
    result.sum().backward()
    assert operands[place].grad is not None


def test_the_gradient_of_a_mask_alone_is_that_of_the_specification():
    q, k, v = (torch.randn(1, 2, 5, 4, dtype=torch.float64) for _ in range(3))
    mask = torch.randn(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    (mine,) = torch.autograd.grad(narrows.attend(q, k, v, scale=0.5, mask=mask).sin().sum(), mask)
    plain = (q @ k.mT * 0.5 + mask).softmax(-1) @ v
    (reference,) = torch.autograd.grad(plain.sin().sum(), mask)
    assert torch.allclose(mine, reference, rtol=1e-12, atol=1e-14)  # some 25 sums of 5 products in float64
