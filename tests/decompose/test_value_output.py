"""Values narrowed together with the output layer."""

from __future__ import annotations

import pytest
import torch

from decompose.heads import heads
from narrows.decompose import mixed_moments, value_output
from narrows.errors import NonFiniteError, RankError, ShapeError


def output(features=10, *, heads=4, width=6, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(features, heads * width, generator=generator, dtype=torch.float64)


def per_head(weight, heads):
    """Return (H, E, K)."""
    return weight.view(len(weight), heads, -1).movedim(1, 0)


def lost(made, weight, maps):
    """Return root of sum over heads of ||what it adds - what it adds now||^2 / sum of ||what it adds||^2."""
    share = len(made.queries) // len(maps.value)
    now = maps.output.repeat_interleave(share, dim=0) @ maps.value.repeat_interleave(share, dim=0)
    parts = per_head(weight, len(made.queries))
    change = made.queries @ (parts @ now - parts).mT
    return float(torch.linalg.vector_norm(change) / torch.linalg.vector_norm(made.queries @ parts.mT))


@pytest.mark.parametrize("width", [1, 3, 5, 6])
def test_the_predicted_error_is_that_of_the_tokens(width):
    made, weight = heads(bias=True), output()
    maps = value_output(weight, made.query_moments, groups=4).at(width)
    assert maps.width == width
    assert lost(made, weight, maps) == pytest.approx(maps.error, rel=1e-8, abs=1e-7)


@pytest.mark.parametrize("width", [1, 3])
def test_least_squares_from_many_starts_find_nothing_better(width):
    made, weight = heads(heads=1, groups=1), output(heads=1)
    best = value_output(weight, made.query_moments, groups=1).at(width).error
    target = made.queries[0] @ weight.mT
    found = []
    for seed in range(4):
        value = torch.randn(width, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for _ in range(300):
            out = torch.linalg.lstsq(made.queries[0] @ value.mT, target).solution.mT
            value = torch.linalg.lstsq(made.queries[0], target @ torch.linalg.pinv(out).mT).solution.mT
        error = made.queries[0] @ value.mT @ out.mT - target
        found.append(float(torch.linalg.vector_norm(error) / torch.linalg.vector_norm(target)))
    assert best <= min(found) * (1 + 1e-9)
    assert min(found) == pytest.approx(best, rel=1e-3)


def test_heads_that_share_values_and_mix_alike_are_exact():
    """The same moment for all heads of a group: the stack of their output columns has a closed form."""
    made, weight = heads(groups=2), output()
    alike = made.query_moments[:1].expand(4, -1, -1)
    maps = value_output(weight, alike, groups=2).at(3)
    parts, second = per_head(weight, 4), alike[0]
    now = maps.output.repeat_interleave(2, dim=0) @ maps.value.repeat_interleave(2, dim=0)
    change = parts @ now - parts
    share = (change @ second @ change.mT).diagonal(dim1=-2, dim2=-1).sum() / (parts @ second @ parts.mT).diagonal(
        dim1=-2, dim2=-1
    ).sum()
    assert float(share) ** 0.5 == pytest.approx(maps.error, rel=1e-8)


def test_knowing_the_output_layer_loses_less_than_the_values_by_themselves():
    made, weight = heads(), output()
    weight = weight * torch.logspace(-1.5, 0, 6, dtype=torch.float64).repeat(4)  # it needs what is small in the values
    kept = torch.linalg.eigh(made.query_moments).eigenvectors[..., -3:]
    parts = per_head(weight, 4)
    alone = made.queries @ (parts @ kept @ kept.mT - parts).mT
    error = float(torch.linalg.vector_norm(alone) / torch.linalg.vector_norm(made.queries @ parts.mT))
    assert value_output(weight, made.query_moments, groups=4).at(3).error < 0.7 * error


def test_a_smaller_width_is_a_prefix_and_its_error_is_in_the_certificate():
    made, weight = heads(), output()
    every = value_output(weight, made.query_moments, groups=2)
    assert torch.equal(every.at(2).value, every.at(5).value[:, :2])
    assert every.certificate.error(2) == every.at(2).error
    assert every.certificate.method == "joint"


def test_mixed_moments_are_the_blocks_of_the_output_layers_input():
    made = heads()
    side_by_side = made.queries.transpose(0, 1).flatten(1)
    inputs = side_by_side.mT @ side_by_side / len(side_by_side)
    assert torch.allclose(mixed_moments(inputs, heads=4), made.queries.mT @ made.queries / 40, atol=1e-12)


def test_what_does_not_fit_is_refused():
    made = heads()
    with pytest.raises(ShapeError, match=r"output \(10, 12\) and mixed \(4, 6, 6\) must be \(E, H K\)"):
        value_output(output(heads=2), made.query_moments, groups=2)
    with pytest.raises(ShapeError, match=r"groups=3 dividing H"):
        value_output(output(), made.query_moments, groups=3)
    with pytest.raises(RankError, match=r"width=0 must be a whole number within 1\.\.6"):
        value_output(output(), made.query_moments, groups=2).at(0)
    with pytest.raises(ShapeError, match=r"inputs \(10, 10\) must be \(H K, H K\) with H=4"):
        mixed_moments(torch.eye(10), heads=4)
    with pytest.raises(NonFiniteError, match=r"output \(10, 24\) or its moments hold NaN or Inf"):
        value_output(output() * float("nan"), made.query_moments, groups=2)
