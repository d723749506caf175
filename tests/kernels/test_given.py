"""A weight that came as a product, run as it came, against its formed matrix."""

from __future__ import annotations

import pytest
import torch

from kernels.counting import Calls
from narrows import Problem, kernels
from narrows.errors import ShapeError
from narrows.kernels import Given

T, U, D, E, K = 5, 7, 16, 12, 3


def _operands(heads, kv_heads, out_features):
    generator = torch.Generator().manual_seed(heads * 10 + kv_heads)
    left = torch.randn(heads, K, D, generator=generator, dtype=torch.float64)
    right = torch.randn(kv_heads, K, out_features, generator=generator, dtype=torch.float64)
    return left, right


def _formed(left, right, x, y):
    right = right.repeat_interleave(len(left) // len(right), dim=0)
    return torch.stack([x @ a.T @ b @ y.T for a, b in zip(left, right, strict=True)])


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("is_self", [True, False])
def test_it_is_the_product_of_every_head(heads, kv_heads, is_self):
    left, right = _operands(heads, kv_heads, D if is_self else E)
    x, y = torch.randn(T, D, dtype=torch.float64), None if is_self else torch.randn(U, E, dtype=torch.float64)
    given = Given.of(left, right, is_self=is_self)
    wanted = _formed(left, right, x, x if y is None else y)
    result = given.run(x, y)
    assert torch.allclose(result if heads > 1 else result.unsqueeze(0), wanted, rtol=1e-12, atol=1e-12)
    out = torch.full_like(result, float("nan"))
    assert torch.equal(given.clone().run(x, y, out=out), result)
    assert torch.equal(out, result)


@pytest.mark.parametrize("is_self", [True, False])
def test_it_launches_what_it_says(is_self):
    left, right = _operands(2, 1, D)
    given = Given.of(left, right, is_self=is_self)
    x = torch.randn(T, D, dtype=torch.float64)
    problem = Problem("bilinear", T, D, D, other_tokens=None if is_self else T, heads=2, given_rank=K, kv_heads=1)
    with Calls() as calls:
        given.run(x, None if is_self else x)
    assert calls.matmuls == kernels.dense_launches("given", problem)


def test_operands_that_do_not_belong_together_are_refused_with_their_heads():
    left, right = _operands(3, 2, D)
    with pytest.raises(ShapeError, match=r"left \(3, 3, 16\) and right \(2, 3, 16\) .* here H=3, G=2"):
        Given.of(left, right, is_self=True)
