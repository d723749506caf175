"""factorize_product equals the SVD of the product that it never forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows import Budget
from narrows.decompose import factorize, factorize_product
from narrows.errors import BudgetError, DeviceError, DtypeError, NonFiniteError, RankError, ShapeError


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@settings(max_examples=40, deadline=None)
@given(
    K=st.integers(1, 9),
    D=st.integers(1, 12),
    E=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    power=st.integers(-9, 9),
)
def test_it_equals_the_svd_of_the_formed_product(K, D, E, seed, power):
    left, right = normal(K, D, seed=seed) * 2.0**power, normal(K, E, seed=seed + 1)
    weight = right.mT @ left
    factors = factorize_product(left, right)
    sigma = np.linalg.svd(weight.numpy(), compute_uv=False)[: min(K, D, E)]
    scale = float(torch.linalg.vector_norm(left) * torch.linalg.vector_norm(right))
    noise = 10 * (D + E + K) * 2.0**-53 * scale
    assert factors.certificate.method == "product"
    assert np.abs(np.array(factors.certificate.singular_values[0]) - sigma).max() <= noise
    assert float(torch.linalg.vector_norm(weight - factors.dense())) <= noise


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_smaller_rank_is_as_good_as_that_of_the_formed_weight(rank):
    left, right = normal(6, 20), normal(6, 14, seed=1)
    weight = right.mT @ left
    product, plain = factorize_product(left, right, rank=rank), factorize(weight, rank=rank)
    assert torch.allclose(product.dense(), plain.dense(), atol=1e-12)
    assert product.error(rank) == pytest.approx(plain.error(rank), abs=1e-14)


def test_the_residual_is_that_of_the_stored_factors():
    left, right = normal(6, 20, dtype=torch.bfloat16), normal(6, 14, seed=1, dtype=torch.bfloat16)
    weight = right.double().mT @ left.double()
    for rank in (2, 6):
        factors = factorize_product(left, right, rank=rank)
        measured = torch.linalg.vector_norm(weight - factors.b.double().mT @ factors.a.double())
        relative = float(measured / torch.linalg.vector_norm(weight))
        assert factors.certificate.residual == pytest.approx(relative, rel=1e-10)


def test_grouped_heads_repeat_the_key_heads():
    left, right = normal(6, 4, 12), normal(2, 4, 10, seed=1)
    factors = factorize_product(left, right)
    assert factors.a.shape == (6, 4, 12)
    for head in range(6):
        assert torch.allclose(factors.dense()[head], right[head // 3].mT @ left[head], atol=1e-12)


def test_square_products_get_interleaved_factors():
    assert factorize_product(normal(4, 12), normal(4, 12, seed=1)).pair is not None


def test_a_million_features_need_no_square_matrix():
    """E x D would take 8 TB in float64."""
    left, right = normal(2, 10**6, dtype=torch.float32), normal(2, 10**6, seed=1, dtype=torch.float32)
    factors = factorize_product(left, right, rank=1)
    assert factors.a.shape == (1, 10**6)
    assert 0.5 < factors.error() < 0.75


def test_operands_stay_as_they_were():
    left, right = normal(4, 12), normal(4, 10, seed=1)
    before = left.clone(), right.clone()
    factorize_product(left, right, rank=2)
    assert torch.equal(left, before[0])
    assert torch.equal(right, before[1])


def test_zero_operands_give_zero_factors():
    factors = factorize_product(torch.zeros(3, 8), torch.zeros(3, 6))
    assert not factors.dense().any()
    assert factors.error() == 0.0


def test_budgets_hold_for_products_too():
    left, right = normal(8, 20), normal(8, 14, seed=1)
    factors = factorize_product(left, right, budget=Budget(error=0.5))
    assert factors.certificate.residual <= 0.5 < factors.error(factors.rank - 1)
    with pytest.raises(BudgetError, match=r"no rank fits max_bytes=8: the nearest is rank 1 with 272 bytes"):
        factorize_product(left, right, budget=Budget(max_bytes=8))


def test_ranks_above_the_inner_size_are_refused():
    with pytest.raises(RankError, match=r"rank=5 is outside 1\.\.4 = min\(K=4, D=12, E=10\)"):
        factorize_product(normal(4, 12), normal(4, 10), rank=5)


@pytest.mark.parametrize(
    ("left", "right"), [((4, 12), (5, 10)), ((2, 4, 12), (4, 10)), ((4, 12), (2, 4, 10)), ((2, 4, 12), (2, 5, 10))]
)
def test_operands_that_do_not_fit_are_refused(left, right):
    with pytest.raises(ShapeError, match=r"left \(.*\) and right \(.*\) must be \(K, D\) and \(K, E\).* the same K"):
        factorize_product(torch.ones(left), torch.ones(right))


@pytest.mark.parametrize("groups", [2, 6])
def test_heads_that_are_no_multiple_are_refused(groups):
    with pytest.raises(ShapeError, match=rf"the H=3 heads of left must be a multiple of the G={groups} of right"):
        factorize_product(torch.ones(3, 4, 5), torch.ones(groups, 4, 5))


def test_mixed_dtypes_are_refused():
    with pytest.raises(DtypeError, match=r"left is torch\.float32 and right is torch\.float64"):
        factorize_product(torch.ones(3, 4), torch.ones(3, 4, dtype=torch.float64))


def test_a_meta_operand_is_refused():
    with pytest.raises(DeviceError, match=r"right is on the meta device"):
        factorize_product(torch.ones(3, 4), torch.ones(3, 4, device="meta"))


def test_the_operand_with_the_nan_is_named():
    right = torch.ones(3, 4)
    right[1, 2] = float("nan")
    with pytest.raises(NonFiniteError, match=r"right \(3, 4\) holds 1 NaN and 0 Inf; the first is at index \(1, 2\)"):
        factorize_product(torch.ones(3, 4), right)
    with pytest.raises(NonFiniteError, match=r"left \(3, 4\) holds 1 NaN and 0 Inf; the first is at index \(1, 2\)"):
        factorize_product(right, torch.ones(3, 4))
