"""Which ranks a factorisation may take, and what it asks of the machine before it begins."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch

from narrows import Budget, factorize
from narrows.decompose import _factorize
from narrows.decompose._limits import Limits, resolve_limits
from narrows.decompose._operands import Scaled
from narrows.decompose._weighted import Metric, decompose
from narrows.decompose._weighted_moment import Moment
from narrows.errors import BudgetError, NonFiniteError, RankError

SIZES = {"D": 9, "E": 5}


def limits(rank=None, **budget):
    return resolve_limits(rank, Budget(**budget) if budget else None, sizes=SIZES, bytes_per_rank=100)


def test_without_rank_and_budget_every_rank_is_allowed_and_nothing_bounds_it():
    assert limits() == Limits(5, is_bounded=False)
    assert limits(error=0.1) == Limits(5, is_bounded=False, error=0.1)


@pytest.mark.parametrize(("max_bytes", "largest"), [(100, 1), (199, 1), (200, 2), (500, 5), (10**6, 5)])
def test_bytes_allow_as_many_ranks_as_fit_whole(max_bytes, largest):
    assert limits(max_bytes=max_bytes) == Limits(largest, True, None, max_bytes, 100)


def test_bytes_that_not_even_one_rank_fits_name_what_one_takes():
    with pytest.raises(BudgetError, match="no rank fits max_bytes=99: the nearest is rank 1 with 100 bytes") as found:
        limits(max_bytes=99)
    assert found.value.nearest == {"rank": 1, "bytes": 100}


@pytest.mark.parametrize(
    ("full", "allowed", "method"),
    [
        (8192, Limits(1, is_bounded=True), "exact"),
        (8193, Limits(1024, is_bounded=True), "randomized"),
        (8193, Limits(1025, is_bounded=True), "exact"),
        (8200, Limits(1025, is_bounded=True), "randomized"),
        (8193, Limits(1024, is_bounded=False), "exact"),
    ],
)
def test_auto_is_randomized_above_8192_for_at_most_an_eighth_of_the_ranks(full, allowed, method):
    assert _factorize._resolve_method("auto", full, allowed) == method


def test_a_rank_lies_within_1_and_the_smaller_size():
    assert limits(1) == Limits(1, is_bounded=True)
    assert limits(5) == Limits(5, is_bounded=True)
    for rank in (0, 6, -1):
        with pytest.raises(RankError, match=rf"rank={rank} is outside 1\.\.5 = min\(D=9, E=5\)"):
            limits(rank)


@pytest.mark.parametrize("largest", [1e300, 1.0, 3.0, 1e-297])
def test_a_scaled_tensor_has_its_largest_element_near_one_and_loses_nothing(largest):
    tensor = torch.tensor([[largest, 0.0], [0.0, largest * 1e-8]], dtype=torch.float64)
    scaled = Scaled.of(tensor)
    assert 0.25 <= float(scaled.tensor.max()) < 2
    assert math.ldexp(float(scaled.tensor.max()), 2 * scaled.exponent) == largest


@pytest.mark.parametrize(
    ("method", "rank", "numbers"), [("exact", None, 5 * 60 + 2 * 6 * 16 + 36), ("randomized", 2, 300)]
)
@pytest.mark.parametrize("heads", [None, 3])
def test_memory_is_asked_for_in_float64_for_every_head(monkeypatch, method, rank, numbers, heads):
    asked = []
    monkeypatch.setattr(_factorize, "fitting", lambda num_bytes, *_, **__: asked.append(num_bytes) or nullcontext())
    factorize(torch.randn(6, 10) if heads is None else torch.randn(heads, 6, 10), rank=rank, method=method)
    assert asked == [8 * numbers * (heads or 1)]


def test_one_part_of_a_product_that_overflows_is_enough_to_refuse_it():
    weight = torch.tensor([[1e200, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    metric = Metric(Moment("inputs", torch.eye(2, dtype=torch.float64), 0.0), None, is_in_nats=False)
    with pytest.raises(NonFiniteError, match="the weight's own moment overflows float64: divide the weight"):
        decompose(weight, metric)


def test_without_shrinkage_an_eigenvalue_below_rounding_is_raised_also_where_cholesky_would_succeed():
    nearly_singular = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 2.0**-52]], dtype=torch.float64)
    assert int(torch.linalg.cholesky_ex(nearly_singular)[1]) == 0
    assert Moment("moment", nearly_singular, 0.0).root().floored == 1
