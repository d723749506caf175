"""A factorisation that takes more memory than is free is refused before it begins."""

from __future__ import annotations

import pytest
import torch

from narrows import factorize
from narrows._cost import workspace_bytes
from narrows._machine import _memory
from narrows._values import Moments
from narrows.decompose import weighted
from narrows.errors import ResourceError


@pytest.fixture
def free(monkeypatch):
    """Return a function that says how many bytes are free, and look also where little is needed."""
    monkeypatch.setattr(_memory, "LEAST_LOOK", 0)
    return lambda num_bytes: monkeypatch.setattr(_memory, "available_bytes", lambda _: num_bytes)


@pytest.mark.parametrize(("shape", "each"), [((16, 16), 10 * 256), ((8, 32), 5 * 256 + 2 * 8 * 40 + 64)])
def test_a_full_svd_needs_copies_of_the_weight_and_of_both_sides(free, shape, each):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    free(8 * each)
    assert factorize(weight).rank == min(shape)
    free(8 * each - 1)
    text = rf"factorising a weight \({shape[0]}, {shape[1]}\) in float64 takes .* GiB of memory.*method='randomized'"
    with pytest.raises(ResourceError, match=text):
        factorize(weight)


def test_heads_need_it_each_and_a_sketch_needs_less(free):
    weight = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    free(3 * 8 * 10 * 256 - 1)
    with pytest.raises(ResourceError, match=r"a weight \(3, 16, 16\) in float64"):
        factorize(weight)
    assert factorize(weight[0], rank=4, method="randomized").rank == 4


def test_a_decomposition_with_moments_is_refused_with_what_to_do(free):
    generator = torch.Generator().manual_seed(0)
    x_TD, weight = torch.randn(64, 8, generator=generator, dtype=torch.float64), torch.randn(6, 8, generator=generator)
    moments = Moments(x_TD.mT @ x_TD / 64, x_TD.mean(dim=0), None, 64)
    free(workspace_bytes(8, 6))
    weighted(weight, moments, method="one-sided")
    free(workspace_bytes(8, 6) - 1)
    with pytest.raises(ResourceError, match=r"decomposing a weight \(6, 8\) with its moments .*or leave it dense"):
        weighted(weight, moments, method="one-sided")
