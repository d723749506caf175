"""Randomized factors: near the best, and honest about how near."""

import math

import numpy as np
import pytest
import torch

from narrows import Budget, factorize
from narrows.decompose._operands import Scaled
from narrows.decompose._randomized import _spectral_bound, randomized
from narrows.errors import InputError
from narrows.testing import gallery, optimal_tail, svd_tolerance

N = 96
INDEX = torch.arange(1, N + 1, dtype=torch.float64)
SPECTRA = {
    "slow": INDEX**-0.7,
    "fast": INDEX**-2.0,
    "geometric": 0.9**INDEX,
    "arithmetic": 1 - (INDEX - 1) / N,
    "flat": torch.ones_like(INDEX),
}


def with_spectrum(sigma, seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    u = torch.linalg.qr(torch.randn(N, N, generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(N + 8, N, generator=generator, dtype=torch.float64)).Q
    return (u * sigma) @ v.mT


def error_of(weight, spectrum):
    product = (spectrum.u * spectrum.sigma) @ spectrum.vt * 4.0**spectrum.exponent
    return float(torch.linalg.vector_norm(weight - product))


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("rank", [4, 12, 40])
def test_the_error_is_within_one_percent_of_the_best(name, rank):
    """Four subspace iterations with ten extra columns: 1.0091 at most over 80 cases of 400 x 400."""
    for seed in range(4):
        weight = with_spectrum(SPECTRA[name], seed)
        best = optimal_tail(SPECTRA[name], rank)
        spectrum = randomized(Scaled.of(weight), rank, seed=seed)
        error = error_of(weight, spectrum)
        assert best * (1 - 1e-12) <= error <= 1.01 * best
        assert error / best <= spectrum.distance + 1e-9


@pytest.mark.parametrize(("name", "rank", "most"), [("slow", 4, 1.05), ("fast", 12, 1.03), ("geometric", 12, 1.03)])
def test_the_bound_of_the_distance_is_useful(name, rank, most):
    weight = with_spectrum(SPECTRA[name], 0)
    assert factorize(weight, rank=rank, method="randomized").certificate.distance <= most


def test_a_poor_sketch_says_that_it_is_poor(monkeypatch):
    """Canary: without iterations the error is far from the best and the certificate says so."""
    monkeypatch.setattr("narrows.decompose._randomized.ITERATIONS", 0)
    weight = with_spectrum(SPECTRA["slow"], 0)
    spectrum = randomized(Scaled.of(weight), 12)
    ratio = error_of(weight, spectrum) / optimal_tail(SPECTRA["slow"], 12)
    assert ratio > 1.03
    assert spectrum.distance >= ratio


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("rank", [1, 12])
def test_the_bound_of_the_largest_value_that_is_left_is_above_it_and_near_it(name, rank):
    largest = float(SPECTRA[name][rank])
    for seed in range(4):
        weight = with_spectrum(SPECTRA[name], seed)
        kept = torch.linalg.svd(weight, full_matrices=False).Vh[:rank].mT
        bound = float(_spectral_bound(weight, kept, torch.Generator().manual_seed(seed)))
        assert largest <= bound <= 1.25 * largest


def test_the_certificate_gives_the_error_of_every_smaller_rank():
    weight = with_spectrum(SPECTRA["slow"], 3)
    factors = factorize(weight, rank=12, method="randomized")
    norm = float(torch.linalg.vector_norm(weight))
    assert factors.certificate.rank == 12
    for rank in (1, 5, 12):
        cut = factors.truncate(rank)
        measured = float(torch.linalg.vector_norm(weight - cut.dense())) / norm
        assert cut.error() == pytest.approx(measured, rel=1e-12)


def test_its_values_never_exceed_the_true_ones():
    weight = with_spectrum(SPECTRA["arithmetic"], 1)
    values = np.array(factorize(weight, rank=20, method="randomized").certificate.singular_values[0])
    assert (values <= SPECTRA["arithmetic"][:20].numpy() * (1 + 1e-13)).all()


@pytest.mark.parametrize(("name", "weight"), list(gallery(24)))
def test_hard_matrices_are_met_within_the_distance(name, weight):
    rank = max(1, min(weight.shape) // 3)
    sigma = np.linalg.svd(weight.numpy(), compute_uv=False)
    factors = factorize(weight, rank=rank, method="randomized")
    error = float(torch.linalg.vector_norm(weight - factors.dense()))
    best = optimal_tail(sigma, rank)
    assert error <= best * min(factors.certificate.distance, 1.03) + svd_tolerance(weight), name


def test_heads_share_one_certificate():
    weight = torch.stack([with_spectrum(SPECTRA["slow"], 0), with_spectrum(SPECTRA["fast"], 1)])
    factors = factorize(weight, rank=6, method="randomized")
    best = math.hypot(optimal_tail(SPECTRA["slow"], 6), optimal_tail(SPECTRA["fast"], 6))
    error = float(torch.linalg.vector_norm(weight - factors.dense()))
    assert error <= 1.01 * best
    assert error / best <= factors.certificate.distance


def test_the_same_call_gives_the_same_bits():
    weight = with_spectrum(SPECTRA["slow"], 0)
    first, second = (factorize(weight, rank=6, method="randomized") for _ in range(2))
    assert torch.equal(first.a, second.a)


def test_an_exactly_low_rank_weight_is_optimal():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 3, generator=generator) @ torch.randn(3, 40, generator=generator)
    certificate = factorize(weight.double(), rank=12, method="randomized").certificate
    assert certificate.residual < 1e-6
    assert certificate.distance >= 1.0


def test_an_error_that_is_rounding_is_at_no_distance_from_the_best():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(40, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    assert factorize(left @ right.mT, rank=12, method="randomized").certificate.distance == 1.0


def test_it_must_know_how_many_ranks_to_look_for():
    for budget in (None, Budget(error=0.1)):
        with pytest.raises(InputError, match=r"method='randomized' must know how many ranks .* give rank= or"):
            factorize(torch.ones(4, 4), budget=budget, method="randomized")


def test_a_byte_cap_is_a_number_of_ranks_and_the_error_cuts_it():
    weight = with_spectrum(SPECTRA["fast"], 0)
    budget = Budget(error=0.01, max_bytes=30 * (N + N + 8) * 8)
    factors = factorize(weight, budget=budget, method="randomized")
    assert factors.rank < 30
    assert factors.certificate.residual <= 0.01
