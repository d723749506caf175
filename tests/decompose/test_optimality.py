"""Exact factors are the best there are (Eckart-Young), on every hard matrix, within a derived bound."""

import itertools
import math

import numpy as np
import pytest
import torch

from narrows.decompose import factorize
from narrows.testing import gallery, optimal_tail, svd_tolerance

GALLERY = dict(gallery(24))
EVERY_MATRIX = pytest.mark.parametrize("name", GALLERY)
BOTH_DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def ranks_of(weight):
    full = min(weight.shape)
    return sorted({1, max(1, full // 3), max(1, full - 1), full})


def sigma_of(weight):
    """Singular values from numpy's LAPACK, in float64."""
    return np.linalg.svd(weight.double().numpy(), compute_uv=False)


def difference(weight, factors):
    return weight.double() - factors.b.double().mT @ factors.a.double()


@EVERY_MATRIX
@BOTH_DTYPES
def test_the_frobenius_error_is_the_optimal_tail(name, dtype):
    weight = GALLERY[name].to(dtype)
    sigma = sigma_of(weight)
    for rank in ranks_of(weight):
        error = float(torch.linalg.vector_norm(difference(weight, factorize(weight, rank=rank))))
        assert abs(error - optimal_tail(sigma, rank)) <= svd_tolerance(weight)


@EVERY_MATRIX
@BOTH_DTYPES
def test_the_spectral_error_is_the_next_singular_value(name, dtype):
    weight = GALLERY[name].to(dtype)
    sigma = np.append(sigma_of(weight), 0.0)
    tolerance = 10 * max(weight.shape) * torch.finfo(dtype).eps / 2 * sigma[0]
    for rank in ranks_of(weight):
        error = float(torch.linalg.matrix_norm(difference(weight, factorize(weight, rank=rank)), 2))
        assert sigma[rank] - tolerance <= error <= sigma[rank] + tolerance


@EVERY_MATRIX
def test_the_error_never_rises_with_the_rank_and_ends_at_zero(name):
    weight = GALLERY[name]
    factors = factorize(weight)
    tolerance = svd_tolerance(weight)
    errors = [
        float(torch.linalg.vector_norm(difference(weight, factors.truncate(r)))) for r in range(1, factors.rank + 1)
    ]
    assert all(after <= before * (1 + 1e-12) + tolerance for before, after in itertools.pairwise(errors))
    assert errors[-1] <= tolerance


@EVERY_MATRIX
@BOTH_DTYPES
def test_the_certificate_gives_the_error_of_every_rank(name, dtype):
    weight = GALLERY[name].to(dtype)
    factors = factorize(weight, rank=1)
    sigma, norm = sigma_of(weight), float(torch.linalg.vector_norm(weight.double())) or 1.0
    assert factors.certificate.rank == min(weight.shape)
    noise = 10 * max(weight.shape) * 2.0**-53
    for rank in range(min(weight.shape) + 1):
        expected = optimal_tail(sigma, rank) / norm
        assert factors.error(rank) == pytest.approx(expected, abs=noise, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["gaussian", "power law", "hilbert", "outlier", "graded rows"])
def test_rounding_adds_no_more_than_storage_costs(name, dtype):
    """(2 u + u^2) sum(sigma) bounds what rounding both factors of an even split can add."""
    weight = GALLERY[name].to(dtype)
    sigma = sigma_of(weight)
    u = torch.finfo(dtype).eps / 2
    floor = 2.0**-25 if dtype == torch.float16 else 0.0  # half the smallest float16 subnormal
    for rank in ranks_of(weight):
        factors = factorize(weight, rank=rank)
        subnormal = floor * (math.sqrt(factors.b.numel()) + math.sqrt(factors.a.numel())) * math.sqrt(sigma[0])
        extra = (2 * u + u * u) * sigma[:rank].sum() + subnormal
        measured = factors.certificate.residual * float(torch.linalg.vector_norm(weight.double()))
        assert measured <= optimal_tail(sigma, rank) + extra + svd_tolerance(weight.double())


def test_a_transposed_weight_fails_the_optimality_check():
    """Canary: the check above sees factors of another matrix."""
    weight = GALLERY["gaussian"]
    error = float(torch.linalg.vector_norm(difference(weight, factorize(weight.mT, rank=8))))
    assert abs(error - optimal_tail(sigma_of(weight), 8)) > 1e6 * svd_tolerance(weight)


def test_swapped_singular_values_fail_the_optimality_check():
    """Canary: leaving out the second instead of the last kept direction is seen."""
    weight = GALLERY["power law"]
    factors = factorize(weight, rank=9)
    keep = [0, *range(2, 9)]
    error = float(torch.linalg.vector_norm(weight - factors.b[keep].mT @ factors.a[keep]))
    assert error > optimal_tail(sigma_of(weight), 8) + 1e6 * svd_tolerance(weight)


@pytest.mark.parametrize("power", [-600, -60, -2, 2, 60, 600])
def test_scaling_by_an_even_power_of_two_is_exact(power):
    weight = GALLERY["gaussian"]
    plain, scaled = factorize(weight, rank=5), factorize(weight * 2.0**power, rank=5)
    assert torch.equal(scaled.a, plain.a * 2.0 ** (power // 2))
    assert torch.equal(scaled.b, plain.b * 2.0 ** (power // 2))
    assert scaled.error(3) == plain.error(3)
    assert scaled.certificate.residual == plain.certificate.residual


@pytest.mark.parametrize("name", ["gaussian", "kahan", "tall", "rank deficient"])
def test_transposing_swaps_the_factors_product(name):
    weight = GALLERY[name]
    rank = min(weight.shape) // 4
    assert float(torch.linalg.vector_norm(difference(weight.mT, factorize(weight.mT, rank=rank)))) == pytest.approx(
        float(torch.linalg.vector_norm(difference(weight, factorize(weight, rank=rank)))), abs=2 * svd_tolerance(weight)
    )


@pytest.mark.parametrize("name", ["gaussian", "hilbert", "outlier"])
def test_permuting_rows_leaves_the_error(name):
    weight = GALLERY[name]
    order = torch.randperm(len(weight), generator=torch.Generator().manual_seed(1))
    for rank in (1, 6):
        assert factorize(weight[order]).error(rank) == pytest.approx(
            factorize(weight).error(rank), abs=2 * 10 * 24 * 2.0**-53
        )


def test_two_runs_give_the_same_bits():
    weight = GALLERY["gaussian"].float()
    first, second = factorize(weight, rank=7), factorize(weight, rank=7)
    assert torch.equal(first.a, second.a)
    assert torch.equal(first.b, second.b)


def test_rows_are_balanced_and_ordered():
    weight = GALLERY["geometric"]
    factors = factorize(weight, rank=12)
    sigma = torch.tensor(factors.certificate.singular_values[0][:12], dtype=torch.float64)
    for side in (factors.a, factors.b):
        assert torch.allclose(side.norm(dim=-1), sigma.sqrt(), rtol=1e-13, atol=0)


def test_a_zero_weight_has_zero_factors_and_no_error():
    factors = factorize(torch.zeros(6, 4), rank=3)
    assert not factors.a.any()
    assert not factors.b.any()
    assert factors.error() == 0.0
    assert factors.certificate.residual == 0.0
