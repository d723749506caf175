"""Tails without cancellation, LAPACK-like tolerances, and a gallery that is what its names say."""

import math

import numpy as np
import pytest
import torch

from narrows.testing import gallery, optimal_tail, svd_tolerance

GALLERY = dict(gallery(24))


def test_a_small_tail_survives_beside_a_large_head():
    assert optimal_tail([1e10, 3e-8, 4e-8], 1) == pytest.approx(5e-8, rel=1e-15)


def test_extreme_tails_neither_overflow_nor_vanish():
    assert optimal_tail([3e300, 4e300], 0) == pytest.approx(5e300, rel=1e-15)
    assert optimal_tail([3e-300, 4e-300], 0) == pytest.approx(5e-300, rel=1e-15)


def test_nothing_is_left_beyond_the_last_value():
    assert optimal_tail([2.0, 1.0], 2) == 0.0
    assert optimal_tail([0.0, 0.0], 1) == 0.0
    assert optimal_tail(torch.tensor([3.0, 4.0]), 0) == 5.0


@pytest.mark.parametrize(("dtype", "u"), [(torch.float32, 2.0**-24), (torch.float64, 2.0**-53)])
def test_the_tolerance_is_ten_roundings_a_row(dtype, u):
    assert svd_tolerance(torch.full((4, 25), 2.0, dtype=dtype)) == 10 * 25 * u * 20


def test_the_gallery_is_reproducible_and_finite():
    for (name, weight), (again, same) in zip(gallery(16), gallery(16), strict=True):
        assert name == again
        assert torch.equal(weight, same)
        assert weight.isfinite().all()
        assert weight.dtype == torch.float64


def test_the_gallery_has_every_kind_of_trouble():
    assert set(GALLERY) == {
        "zero", "identity", "ones", "rank one", "permutation", "gaussian", "rank deficient", "arithmetic",
        "geometric", "clustered low", "clustered high", "clustered blocks", "power law", "hilbert", "kahan",
        "graded rows", "outlier", "scaled up", "scaled down", "tall", "wide", "row", "column",
    }  # fmt: skip
    assert GALLERY["tall"].shape == (72, 24)
    assert GALLERY["wide"].shape == (24, 72)
    assert GALLERY["row"].shape == (1, 24)


@pytest.mark.parametrize(
    ("name", "rank"), [("zero", 0), ("ones", 1), ("rank one", 1), ("rank deficient", 6), ("permutation", 24)]
)
def test_ranks_are_what_the_names_say(name, rank):
    assert np.linalg.matrix_rank(GALLERY[name].numpy()) == rank


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("arithmetic", 1, 1 / 24),
        ("geometric", 1, 2.0**-52),
        ("clustered high", 1, 2.0**-52),
        ("power law", 1, 24**-0.7),
    ],
)
def test_spectra_are_what_the_names_say(name, first, last):
    sigma = np.linalg.svd(GALLERY[name].numpy(), compute_uv=False)
    assert sigma[0] == pytest.approx(first, rel=1e-12)
    assert sigma[-1] == pytest.approx(last, abs=24 * 2.0**-52)


def test_hilbert_and_kahan_have_their_entries():
    assert GALLERY["hilbert"][2, 3] == 1 / 6
    kahan = GALLERY["kahan"]
    assert kahan[0, 0] == 1
    assert kahan[2, 2] == pytest.approx(math.sin(1.2) ** 2)
    assert kahan[2, 5] == pytest.approx(-math.cos(1.2) * math.sin(1.2) ** 2)
    assert not kahan.tril(-1).any()
