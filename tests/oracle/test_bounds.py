"""T1: real chains stay inside the bound, wrong ones do not; prefixes reuse the projections."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from narrows._oracle import gamma
from narrows.errors import ShapeError
from narrows.testing import (
    Arithmetic,
    BilinearOracle,
    LinearOracle,
    Reference,
    bilinear_bound,
    dense_bilinear_bound,
    dense_linear_bound,
    linear_bound,
    worst,
)

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIZES = st.integers(0, 33)


def normal(*shape, seed=0, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


def fits(reference, dtype):
    """No element is near the dtype's largest number, where a correct result is Inf."""
    return not reference.value.numel() or float(reference.value.abs().max()) < torch.finfo(dtype).max / 2


@settings(max_examples=50, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    T=SIZES,
    U=SIZES,
    D=SIZES,
    E=SIZES,
    R=st.integers(1, 33),
    seed=st.integers(0, 10**6),
    power=st.integers(-6, 3),
    is_transposed=st.booleans(),
)
def test_every_chain_stays_inside_its_bound(dtype, T, U, D, E, R, seed, power, is_transposed):
    x, y = normal(T, D, seed=seed, dtype=dtype, scale=2.0**power), normal(U, E, seed=seed + 1, dtype=dtype)
    a, b = normal(R, D, seed=seed + 2, dtype=dtype), normal(R, E, seed=seed + 3, dtype=dtype, scale=2.0**-power)
    w, bias = normal(E, D, seed=seed + 4, dtype=dtype), normal(E, seed=seed + 5, dtype=dtype)
    if is_transposed:
        x, a, w = (t.mT.contiguous().mT for t in (x, a, w))
    results = [
        ((x @ a.mT) @ (y @ b.mT).mT, bilinear_bound(x, a, b, y)),
        (torch.addmm(bias, x @ a.mT, b), linear_bound(x, a, b, bias)),
        ((x @ a.mT) @ b, linear_bound(x, a, b)),
        (torch.nn.functional.linear(x, w, bias), dense_linear_bound(x, w, bias)),
        ((x @ w.mT) @ y.mT, dense_bilinear_bound(x, w, y)),
        (x @ (y @ w).mT, dense_bilinear_bound(x, w, y, association="right")),
    ]
    assume(all(fits(reference, dtype) for _, reference in results))
    for result, reference in results:
        assert worst(result, reference) <= 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bound_is_a_few_roundings_wide(dtype):
    """A bound that is never wrong is easy: this one is at most 16 roundings of sum |x||a||b|."""
    x, a, b = normal(8, 16, dtype=dtype), normal(4, 16, seed=1, dtype=dtype), normal(4, 12, seed=2, dtype=dtype)
    reference = linear_bound(x, a, b)
    magnitude = x.double().abs() @ a.double().abs().mT @ b.double().abs()
    u = torch.finfo(dtype).eps / 2
    terms = 16 + 4 + 4 if dtype in {torch.float32, torch.float64} else 4
    assert (reference.bound <= 2 * terms * u * magnitude + 2 * torch.finfo(dtype).tiny).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_element_twice_its_bound_away_is_wrong(dtype):
    """Canary: one element of many, moved by twice its own bound."""
    x, a, b = normal(8, 16, dtype=dtype), normal(4, 16, seed=1, dtype=dtype), normal(4, 12, seed=2, dtype=dtype)
    reference = linear_bound(x, a, b)
    result = reference.value.clone()
    result[5, 7] += 2 * reference.bound[5, 7]
    assert worst(result, reference) == pytest.approx(2, rel=1e-3)


def test_the_value_is_that_of_exact_arithmetic():
    x, a, b, y = (normal(*shape, seed=i) for i, shape in enumerate([(2, 5), (3, 5), (3, 4), (2, 4)]))
    reference = bilinear_bound(x, a, b, y)
    exact = [[Fraction(v) for v in row] for row in x.tolist()], [[Fraction(v) for v in row] for row in a.tolist()]
    p = [[sum(i * j for i, j in zip(r, s, strict=True)) for s in exact[1]] for r in exact[0]]
    right = [[Fraction(v) for v in row] for row in y.tolist()], [[Fraction(v) for v in row] for row in b.tolist()]
    q = [[sum(i * j for i, j in zip(r, s, strict=True)) for s in right[1]] for r in right[0]]
    for t in range(2):
        for u in range(2):
            true = sum(i * j for i, j in zip(p[t], q[u], strict=True))
            assert abs(float(Fraction(float(reference.value[t, u])) - true)) <= float(reference.bound[t, u])


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_prefix_of_the_oracle_is_the_oracle_of_the_prefix(rank):
    x, a, b, y = (normal(*s, seed=i, dtype=torch.bfloat16) for i, s in enumerate([(5, 9), (6, 9), (6, 7), (4, 7)]))
    pairs = [
        (BilinearOracle(x, a, b, y).at(rank), bilinear_bound(x, a[:rank], b[:rank], y)),
        (LinearOracle(x, a, b, y[0]).at(rank), linear_bound(x, a[:rank], b[:rank], y[0])),
    ]
    for prefix, whole in pairs:
        assert torch.allclose(prefix.value, whole.value, rtol=1e-14, atol=1e-14)
        assert torch.allclose(prefix.bound, whole.bound, rtol=1e-12, atol=0)


def test_heads_and_batches_broadcast():
    x, a, b, y = normal(5, 1, 4, 9), normal(3, 2, 9), normal(3, 2, 7), normal(5, 1, 6, 7)
    assert bilinear_bound(x, a, b, y).value.shape == (5, 3, 4, 6)
    one = bilinear_bound(x[2, 0], a[1], b[1], y[2, 0])
    assert torch.allclose(bilinear_bound(x, a, b, y).value[2, 1], one.value, atol=1e-13)
    assert linear_bound(x, a, b).bound.shape == (5, 3, 4, 7)


def test_a_float32_middle_has_a_smaller_bound():
    operands = [normal(*s, seed=i, dtype=torch.bfloat16) for i, s in enumerate([(5, 9), (6, 9), (6, 7), (4, 7)])]
    wide, tight = bilinear_bound(*operands), bilinear_bound(*operands, middle=torch.float32)
    assert (tight.bound < wide.bound).all()
    assert torch.equal(tight.value, wide.value)


def test_both_associations_agree_on_the_value():
    x, w, y = normal(4, 6), normal(5, 6, seed=1), normal(3, 5, seed=2)
    left, right = (dense_bilinear_bound(x, w, y, association=name) for name in ("left", "right"))
    assert torch.allclose(left.value, right.value, rtol=1e-13, atol=1e-13)


def test_a_gpus_tensor_cores_are_given_one_bit_more():
    assert Arithmetic.of(torch.bfloat16, device="cuda").accumulator == 2.0**-23
    assert Arithmetic.of(torch.float32, device="cuda").accumulator == 2.0**-24
    assert Arithmetic.of(torch.bfloat16, device="cpu").accumulator == 2.0**-24
    assert Arithmetic.of(torch.float64, device="cuda").accumulator == 2.0**-53


def test_gamma_is_infinite_where_the_sum_is_too_long():
    assert gamma(4, 0.125) == 1.0
    assert gamma(8, 0.125) == math.inf
    assert gamma(0, 0.125) == 0.0


def of(value, bound):
    return Reference(torch.tensor(value, dtype=torch.float64), torch.tensor(bound, dtype=torch.float64))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_results_are_infinitely_wrong(bad):
    assert worst(torch.tensor([1.0, bad]), of([1.0, 1.0], [0.1, 0.1])) == math.inf


def test_the_worst_element_decides():
    assert worst(torch.tensor([1.0, 2.5]), of([1.0, 2.0], [1e-9, 0.25])) == 2.0


def test_an_exact_element_needs_no_bound_and_a_wrong_one_has_none():
    assert worst(torch.tensor([0.0]), of([0.0], [0.0])) == 0.0
    assert worst(torch.tensor([1.0]), of([0.0], [0.0])) == math.inf


def test_an_empty_result_is_right():
    assert worst(torch.empty(0, 3), Reference(torch.empty(0, 3), torch.empty(0, 3))) == 0.0


def test_a_result_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"result \(2,\) must have the shape \(1,\)"):
        worst(torch.zeros(2), of([0.0], [0.0]))
