"""The pivot form: the same weight in fewer numbers, with pivots that carry the other rows well."""

from itertools import product

import pytest
import torch

from narrows import Factors, factorize
from narrows.decompose import pivot
from narrows.decompose._pivot import GROWTH, _start
from narrows.errors import NonFiniteError, ShapeError

SHAPES = pytest.mark.parametrize(
    ("E", "D", "R"), [(12, 20, 5), (20, 12, 5), (20, 12, 12), (12, 20, 12), (12, 20, 1), (1, 4, 1)]
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def factors_of(E, D, R, seed=0):
    return factorize(normal(E, D, seed=seed), rank=R)


def nearly_parallel(E=40, D=30, R=8):
    """Return factors whose first R rows of the weight are almost one row: the worst pivots there could be."""
    b = normal(R, E, seed=1)
    b[:, :R] = b[:, :1] + 1e-3 * normal(R, R, seed=2)
    return Factors(normal(R, D, seed=3), b)


def wilkinson(R=30):
    """Return a basis on which partial pivoting keeps the order it finds, and elements of L^-1 grow to 2^(R - 2)."""
    top = torch.eye(R, dtype=torch.float64) - torch.ones(R, R, dtype=torch.float64).tril(-1)
    return torch.cat((top, -torch.ones(4, R, dtype=torch.float64) / 1.5))


@SHAPES
def test_it_is_the_same_weight(E, D, R):
    factors = factors_of(E, D, R)
    assert torch.allclose(pivot(factors).dense(), factors.dense(), atol=1e-12)


@SHAPES
def test_it_takes_fewer_numbers_than_the_weight_or_the_factors(E, D, R):
    form = pivot(factors_of(E, D, R))
    numbers = form.rows.numel() + form.rest.numel()
    assert numbers == R * (D + E - R)
    assert numbers <= D * E
    assert numbers < R * (D + E)


@SHAPES
def test_its_rows_are_rows_of_the_weight_and_its_order_is_a_permutation(E, D, R):
    factors = factors_of(E, D, R)
    form = pivot(factors)
    assert sorted(form.order.tolist()) == list(range(E))
    assert torch.allclose(form.rows, factors.dense()[form.order[:R]], atol=1e-13)
    for part in (form.order[:R], form.order[R:]):
        assert part.tolist() == sorted(part.tolist())


@pytest.mark.parametrize("seed", range(5))
def test_no_element_of_rest_is_large(seed):
    form = pivot(factors_of(60, 40, 25, seed=seed))
    assert float(form.rest.abs().max()) <= GROWTH * (1 + 1e-9)


def test_no_single_swap_makes_the_pivots_volume_much_larger():
    factors = factors_of(9, 7, 3)
    form, basis = pivot(factors), factors.b.mT
    pivots = form.order[:3].tolist()
    volume = abs(float(torch.linalg.det(basis[pivots])))
    for place, other in product(range(3), form.order[3:].tolist()):
        swapped = [other if i == place else one for i, one in enumerate(pivots)]
        assert abs(float(torch.linalg.det(basis[swapped]))) <= GROWTH * volume * (1 + 1e-9)


def test_swaps_mend_what_partial_pivoting_alone_cannot():
    """Canary: on Wilkinson's matrix the start has elements of 1e8, which rounding would be multiplied by."""
    basis = wilkinson()
    _, rest = _start(basis)
    assert float(rest.abs().max()) > 1e7
    form = pivot(Factors(normal(30, 35), basis.mT.contiguous()))
    assert float(form.rest.abs().max()) <= GROWTH * (1 + 1e-6)


def test_rounding_is_far_smaller_than_with_pivots_that_are_alike():
    """Canary: the same form from the first R rows loses hundreds of times as much in bfloat16."""
    factors = nearly_parallel()
    weight = factors.dense()

    def loss(rows, rest, order):
        product = torch.empty_like(weight)
        rows, rest = rows.bfloat16().double(), rest.bfloat16().double()
        product[order] = torch.cat((rows, rest @ rows))
        return float((product - weight).norm() / weight.norm())

    first = factors.b.mT[:8]
    naive = loss(weight[:8], torch.linalg.solve(first.mT, factors.b[:, 8:]).mT, torch.arange(40))
    form = pivot(factors)
    ours = loss(form.rows, form.rest, form.order)
    assert naive > 100 * ours
    # Rows err by u of each element, rest by u of each element: R times GROWTH of u on both sides at the very worst.
    assert ours <= 2 * 8 * GROWTH * 2.0**-8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_it_has_the_dtype_that_is_asked_for(dtype):
    form = pivot(factors_of(12, 20, 5), dtype=dtype)
    assert form.rows.dtype == form.rest.dtype == dtype
    assert pivot(factors_of(12, 20, 5)).rows.dtype == torch.float64


def test_factors_of_a_smaller_true_rank_are_no_obstacle():
    thin = normal(3, 12, seed=1)
    factors = Factors(normal(6, 20), torch.cat((thin, thin @ torch.diag(torch.zeros(12, dtype=torch.float64)))))
    form = pivot(factors)
    assert torch.isfinite(form.rest).all()
    assert torch.allclose(form.dense(), factors.dense(), atol=1e-12)


def test_zero_factors_are_no_obstacle():
    form = pivot(Factors(torch.zeros(3, 6), torch.zeros(3, 5)))
    assert not form.dense().any()


def test_the_factors_stay_as_they_were():
    factors = factors_of(12, 20, 5)
    before = factors.a.clone(), factors.b.clone()
    pivot(factors)
    assert torch.equal(factors.a, before[0])
    assert torch.equal(factors.b, before[1])


# Bad input


def test_heads_are_refused():
    with pytest.raises(
        ShapeError, match=r"factors a \(2, 3, 6\), b \(2, 3, 5\) must be \(R, D\), \(R, E\) with R <= E"
    ):
        pivot(Factors(torch.ones(2, 3, 6), torch.ones(2, 3, 5)))


def test_more_ranks_than_rows_are_refused():
    with pytest.raises(ShapeError, match=r"factors a \(6, 9\), b \(6, 5\) must be \(R, D\), \(R, E\) with R <= E"):
        pivot(Factors(torch.ones(6, 9), torch.ones(6, 5)))


def test_factors_with_a_nan_are_refused():
    b = torch.ones(3, 5)
    b[1, 2] = float("nan")
    with pytest.raises(NonFiniteError, match=r"factors\.b \(3, 5\) holds 1 NaN and 0 Inf; .* index \(1, 2\)"):
        pivot(Factors(torch.ones(3, 6), b))
    a = torch.ones(3, 6)
    a[2, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"factors\.a \(3, 6\) holds 0 NaN and 1 Inf; .* index \(2, 0\)"):
        pivot(Factors(a, torch.ones(3, 5)))
