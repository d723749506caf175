"""What factorize hands over: dtypes, layout, heads, prefixes, budgets; and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows import Budget, factorize
from narrows.decompose import _factorize
from narrows.errors import (
    BudgetError,
    DeviceError,
    DtypeError,
    InputError,
    NonFiniteError,
    RankError,
    ShapeError,
)

ALL_DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def relative(weight, factors):
    weight = weight.double()
    product = factors.b.double().mT @ factors.a.double()
    return float(torch.linalg.vector_norm(weight - product) / torch.linalg.vector_norm(weight))


@ALL_DTYPES
def test_factors_have_the_weights_dtype_and_sizes(dtype):
    factors = factorize(normal(12, 20, dtype=dtype), rank=5)
    assert factors.a.shape == (5, 20)
    assert factors.b.shape == (5, 12)
    assert factors.a.dtype == factors.b.dtype == dtype
    assert factors.is_ordered


@ALL_DTYPES
def test_the_residual_is_that_of_the_stored_factors(dtype):
    weight = normal(12, 20, dtype=dtype)
    factors = factorize(weight, rank=5)
    assert factors.certificate.residual == pytest.approx(relative(weight, factors), rel=1e-12)


def test_every_rank_is_kept_when_nothing_is_asked():
    factors = factorize(normal(12, 20))
    assert factors.rank == 12
    assert factors.certificate.method == "exact"
    assert factors.certificate.distance is None
    assert factors.certificate.seconds > 0


def test_a_prefix_is_the_smaller_factorisation():
    weight = normal(16, 16, dtype=torch.float32)
    large, small = factorize(weight, rank=9), factorize(weight, rank=4)
    assert torch.equal(large.truncate(4).a, small.a)
    assert torch.equal(large.truncate(4).b, small.b)
    assert large.truncate(4).error() == small.error()


@ALL_DTYPES
def test_square_weights_get_interleaved_factors(dtype):
    factors = factorize(normal(8, 8, dtype=dtype), rank=3)
    assert factors.pair is not None
    assert factors.pair.shape == (3, 2, 8)
    assert factors.interleaved() is factors


def test_rectangular_weights_get_contiguous_factors():
    factors = factorize(normal(8, 12), rank=3)
    assert factors.a.is_contiguous()
    assert factors.b.is_contiguous()


def test_each_head_is_factorised_by_itself():
    weight = normal(3, 10, 8)
    factors = factorize(weight, rank=4)
    assert factors.a.shape == (3, 4, 8)
    assert len(factors.certificate.singular_values) == 3
    for head in range(3):
        one = factorize(weight[head], rank=4)
        assert torch.allclose(factors.b[head].mT @ factors.a[head], one.b.mT @ one.a, atol=1e-13)
    assert factors.error() == pytest.approx(relative(weight, factors), rel=1e-12)


@pytest.mark.parametrize("make", [lambda w: w.mT.contiguous().mT, lambda w: torch.cat([w, w])[:12]])
def test_the_memory_order_of_the_weight_does_not_matter(make):
    weight = normal(12, 20)
    assert relative(weight, factorize(make(weight), rank=5)) == pytest.approx(factorize(weight, rank=5).error())


def test_an_expanded_weight_is_factorised():
    assert factorize(normal(1, 9).expand(7, 9)).error(1) < 1e-15


def test_the_weight_stays_as_it_was_and_gets_no_gradient():
    weight = torch.nn.Parameter(normal(6, 5, dtype=torch.float32))
    before = weight.detach().clone()
    factors = factorize(weight, rank=2)
    assert torch.equal(weight.detach(), before)
    assert not factors.a.requires_grad
    assert not factors.b.requires_grad


def test_a_weight_made_in_inference_mode_is_factorised():
    with torch.inference_mode():
        weight = normal(6, 5)
    assert not factorize(weight, rank=2).a.is_inference()


@pytest.mark.parametrize("rank", [np.int64(3), torch.tensor(3)])
def test_whole_numbers_of_other_libraries_are_ranks(rank):
    assert factorize(normal(6, 5), rank=rank).rank == 3


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    power=st.integers(-12, 12),
    data=st.data(),
)
def test_any_weight_is_met_as_its_certificate_says(rows, columns, seed, power, data):
    weight = normal(rows, columns, seed=seed) * 2.0**power
    rank = data.draw(st.integers(1, min(rows, columns)))
    factors = factorize(weight, rank=rank)
    sigma = np.linalg.svd(weight.numpy(), compute_uv=False)
    noise = 10 * max(rows, columns) * 2.0**-53
    assert abs(relative(weight, factors) - np.sqrt((sigma[rank:] ** 2).sum()) / np.linalg.norm(sigma)) <= noise
    assert abs(factors.certificate.residual - factors.error()) <= noise


# Budgets


def test_the_smallest_rank_within_the_error_is_kept():
    weight = normal(20, 30)
    factors = factorize(weight, budget=Budget(error=0.4))
    assert relative(weight, factors) <= 0.4
    assert factors.error(factors.rank - 1) > 0.4


def test_bytes_alone_keep_the_largest_rank_that_fits():
    factors = factorize(normal(20, 30, dtype=torch.float32), budget=Budget(max_bytes=1250))
    assert factors.rank == 6  # (20 + 30) * 4 = 200 bytes a rank
    assert factors.num_bytes == 1200


def test_bytes_count_every_head():
    assert factorize(normal(2, 20, 30, dtype=torch.float32), budget=Budget(max_bytes=1250)).rank == 3


def test_an_empty_budget_keeps_every_rank():
    assert factorize(normal(6, 5), budget=Budget()).rank == 5


def test_an_error_of_zero_is_met_by_every_rank_in_float64():
    assert factorize(normal(6, 5), budget=Budget(error=0.0)).rank == 5


def test_rounding_counts_within_the_budget():
    """bfloat16 rounding adds about 2e-3 in squares, so truncation gets less than the whole budget."""
    weight = normal(32, 32, dtype=torch.bfloat16)
    exact = factorize(weight.double())
    budget = Budget(error=exact.error(30) * 1.0000001)
    assert factorize(weight.double(), budget=budget).rank == 30
    stored = factorize(weight, budget=budget)
    assert stored.rank == 31
    assert stored.certificate.residual <= budget.error


def test_rounding_alone_can_miss_the_budget():
    with pytest.raises(
        BudgetError,
        match=r"no rank meets error=1e-05: the nearest is rank 8, whose bfloat16 factors take 256 bytes "
        r"and have an error of 0\.00\d+",
    ) as caught:
        factorize(normal(8, 8, dtype=torch.bfloat16), budget=Budget(error=1e-5))
    assert caught.value.nearest["rank"] == 8


def test_error_and_bytes_that_exclude_each_other_name_the_nearest_rank():
    weight = normal(20, 30, dtype=torch.float32)
    with pytest.raises(
        BudgetError,
        match=r"no rank meets error=0\.1 within max_bytes=1250 \(it takes rank \d+, \d+ bytes\): "
        r"the nearest is rank 6, whose float32 factors take 1200 bytes and have an error of 0\.\d+",
    ) as caught:
        factorize(weight, budget=Budget(error=0.1, max_bytes=1250))
    assert caught.value.nearest["error"] == pytest.approx(factorize(weight, rank=6).error(), rel=1e-6)


def test_bytes_for_less_than_one_rank_are_refused():
    with pytest.raises(BudgetError, match=r"no rank fits max_bytes=100: the nearest is rank 1 with 200 bytes"):
        factorize(normal(20, 30, dtype=torch.float32), budget=Budget(max_bytes=100))


def test_a_speedup_is_not_a_budget_here():
    with pytest.raises(InputError, match=r"budget\.min_speedup=1\.2 cannot be met here: .* measures no time"):
        factorize(normal(4, 4), budget=Budget(min_speedup=1.2))


def test_rank_and_budget_together_are_refused():
    with pytest.raises(InputError, match=r"rank=2 and budget=Budget\(.*\) are both given"):
        factorize(normal(4, 4), rank=2, budget=Budget(error=0.1))


def test_a_number_is_not_a_budget():
    with pytest.raises(InputError, match=r"budget=0\.1 is a float: give a Budget, as Budget\(error=0\.01\)"):
        factorize(normal(4, 4), budget=0.1)


# Bad input


@pytest.mark.parametrize("rank", [0, -1, 6, 10**9])
def test_ranks_outside_the_sizes_are_refused(rank):
    with pytest.raises(RankError, match=rf"rank={rank} is outside 1\.\.5 = min\(D=5, E=6\)"):
        factorize(normal(6, 5), rank=rank)


@pytest.mark.parametrize("rank", [True, 2.0, float("nan"), "2", np.bool_(True), np.float64(2)])
def test_ranks_that_are_no_whole_numbers_are_refused(rank):
    with pytest.raises(RankError, match=rf"rank=.* is a {type(rank).__name__}: give a whole number within 1\.\."):
        factorize(normal(6, 5), rank=rank)


def test_non_finite_values_are_counted_and_located():
    weight = normal(6, 5)
    weight[2, 3], weight[4, 0], weight[5, 1] = float("nan"), float("inf"), float("-inf")
    with pytest.raises(NonFiniteError, match=r"weight \(6, 5\) holds 1 NaN and 2 Inf; the first is at index \(2, 3\)"):
        factorize(weight, rank=2)


@ALL_DTYPES
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_values_are_found_in_every_dtype(dtype, bad):
    weight = normal(6, 5, dtype=dtype)
    weight[0, 0] = bad
    with pytest.raises(NonFiniteError, match=r"first is at index \(0, 0\)"):
        factorize(weight)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn], ids=str)
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(DtypeError, match=rf"weight is {dtype}, .*Convert it first"):
        factorize(torch.zeros(4, 4).to(dtype))


def test_dtype_errors_are_type_errors():
    with pytest.raises(TypeError):
        factorize(torch.ones(4, 4, dtype=torch.int64))


def test_meta_tensors_are_refused():
    with pytest.raises(DeviceError, match=r"weight is on the meta device and has no values"):
        factorize(torch.empty(4, 4, device="meta"))


@pytest.mark.parametrize("shape", [(4,), (2, 2, 2, 2), (0, 4), (4, 0), (0, 4, 4), ()])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ShapeError, match=r"weight \(.*\) must be 2-D, or 3-D over heads, with every size at least 1"):
        factorize(torch.ones(shape))


def test_what_is_not_a_tensor_is_refused():
    with pytest.raises(InputError, match=r"weight is a ndarray: give a plain torch\.Tensor"):
        factorize(np.ones((4, 4)))


def test_tensor_subclasses_are_refused():
    class Sharded(torch.Tensor):
        pass

    with pytest.raises(InputError, match=r"weight is a Sharded: give a plain torch\.Tensor"):
        factorize(torch.ones(4, 4).as_subclass(Sharded))


def test_sparse_tensors_are_refused():
    with pytest.raises(InputError, match=r"weight has the layout torch\.sparse_coo: give a dense tensor"):
        factorize(torch.eye(4).to_sparse())


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match=r"method='fast' is not known\. Use one of: auto, exact, randomized"):
        factorize(normal(4, 4), method="fast")


def test_a_norm_beyond_float64_is_refused():
    with pytest.raises(NonFiniteError, match=r"the norm of the weight overflows float64"):
        factorize(torch.full((4, 4), 1e308, dtype=torch.float64))


# The choice of method


@pytest.mark.parametrize(
    ("large", "rank", "method"), [(16, 4, "randomized"), (16, 5, "exact"), (32, 4, "exact"), (16, None, "exact")]
)
def test_auto_is_randomized_for_few_ranks_of_a_large_weight(monkeypatch, large, rank, method):
    monkeypatch.setattr(_factorize, "LARGE", large)
    assert factorize(normal(32, 40), rank=rank).certificate.method == method


def test_auto_counts_bytes_as_a_rank(monkeypatch):
    monkeypatch.setattr(_factorize, "LARGE", 16)
    assert factorize(normal(32, 40), budget=Budget(max_bytes=4 * 72 * 8)).certificate.method == "randomized"
