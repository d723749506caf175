"""Queries and keys narrowed together: nothing narrower loses less, and what it loses is known."""

from __future__ import annotations

import pytest
import torch

from decompose.heads import heads
from narrows._values import Moments
from narrows.decompose import head_moments, query_key
from narrows.errors import NonFiniteError, RankError, ShapeError


def scores(queries, keys):
    """Return every query head's scores with its key head, (H, N, N)."""
    return queries @ keys.repeat_interleave(len(queries) // len(keys), dim=0).mT


def narrow_scores(made, maps):
    return scores(made.queries @ maps.query.repeat_interleave(made.share, dim=0).mT, made.keys @ maps.key.mT)


def error_of(made, maps):
    whole = scores(made.queries, made.keys)
    return float(torch.linalg.vector_norm(narrow_scores(made, maps) - whole) / torch.linalg.vector_norm(whole))


def alternated(made, width, seed):
    """Return the error that least squares in turn reach from a random start."""
    generator = torch.Generator().manual_seed(seed)
    key = torch.randn(len(made.keys), width, made.keys.shape[-1], generator=generator, dtype=torch.float64)
    every_key = made.keys.repeat_interleave(made.share, dim=0)
    whole = scores(made.queries, made.keys)
    for _ in range(200):
        narrow = every_key @ key.repeat_interleave(made.share, dim=0).mT
        query = torch.linalg.lstsq(narrow, every_key).solution  # (H, R, K): q' = query q reaches q^T k best
        mine = made.queries @ query.mT
        stacked = mine.reshape(len(made.keys), -1, width), made.queries.reshape(len(made.keys), -1, every_key.shape[-1])
        key = torch.linalg.lstsq(*stacked).solution
    reached = mine @ (every_key @ key.repeat_interleave(made.share, dim=0).mT).mT
    return float(torch.linalg.vector_norm(reached - whole) / torch.linalg.vector_norm(whole))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("width", [1, 3, 5, 6])
def test_the_predicted_error_is_that_of_all_pairs_of_tokens(width, groups, bias):
    made = heads(groups=groups, bias=bias)
    maps = query_key(made.summed, made.key_moments).at(width)
    assert maps.width == width
    assert error_of(made, maps) == pytest.approx(maps.error, rel=1e-8, abs=1e-11)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("width", [1, 3])
def test_least_squares_from_many_starts_find_nothing_better(width, groups):
    made = heads(groups=groups, bias=True)
    best = query_key(made.summed, made.key_moments).at(width).error
    found = [alternated(made, width, seed) for seed in range(4)]
    assert best <= min(found) * (1 + 1e-9)
    assert min(found) == pytest.approx(best, rel=1e-3)  # the search is able to find it


def test_a_smaller_width_is_a_prefix():
    made = heads()
    every = query_key(made.summed, made.key_moments)
    assert torch.equal(every.at(2).query, every.at(5).query[:, :2])
    assert torch.equal(every.at(2).key, every.at(5).key[:, :2])
    assert every.certificate.method == "joint"
    assert [every.certificate.error(r) for r in range(1, 7)] == sorted(
        (every.at(r).error for r in range(1, 7)), reverse=True
    )


def test_queries_and_keys_are_not_interchangeable():
    """Where both sides differ, maps with the sides swapped must be far off: the check can see a mix-up."""
    made = heads(heads=2, groups=2)
    maps = query_key(made.summed, made.key_moments).at(3)
    swapped = query_key(made.key_moments, made.summed).at(3)
    assert error_of(made, swapped) > 1.8 * error_of(made, maps)


def test_both_sides_together_lose_less_than_each_by_itself():
    made = heads(bias=True)
    alone = []
    for second in (made.query_moments, made.key_moments):
        kept = torch.linalg.eigh(second).eigenvectors[..., -2:]
        alone.append(kept @ kept.mT)
    whole = scores(made.queries, made.keys)
    separate = scores(made.queries @ alone[0], made.keys @ alone[1]) - whole
    error = float(torch.linalg.vector_norm(separate) / torch.linalg.vector_norm(whole))
    assert query_key(made.summed, made.key_moments).at(2).error < 0.8 * error


def test_both_sides_have_the_same_energy_in_every_feature():
    made = heads()
    maps = query_key(made.summed, made.key_moments).at(6)
    query = (maps.query @ made.summed @ maps.query.mT).diagonal(dim1=-2, dim2=-1)
    key = (maps.key @ made.key_moments @ maps.key.mT).diagonal(dim1=-2, dim2=-1)
    assert torch.allclose(query, key, rtol=1e-9)


def test_the_bias_counts_as_one_more_feature_that_is_always_one():
    made = heads(bias=True, heads=1, groups=1)
    direct = made.queries.mT @ made.queries / made.queries.shape[1]
    assert torch.allclose(made.query_moments, direct, rtol=1e-12, atol=1e-12)


def test_centred_keys_lose_least_of_what_the_softmax_sees():
    """What all keys have in common adds one number to every score of a row."""
    made = heads(bias=True, tokens=60)
    common = made.keys.mean(dim=1, keepdim=True)
    centred = made.key_moments - common.mT @ common
    maps = query_key(made.summed, centred).at(2)
    whole = scores(made.queries, made.keys)

    def shape_error(maps):
        change = narrow_scores(made, maps) - whole
        shape = whole - whole.mean(-1, keepdim=True)
        return float(torch.linalg.vector_norm(change - change.mean(-1, keepdim=True)) / torch.linalg.vector_norm(shape))

    assert shape_error(maps) == pytest.approx(maps.error, rel=1e-8)
    assert shape_error(maps) < shape_error(query_key(made.summed, made.key_moments).at(2))


def test_centred_moments_are_those_of_the_vectors_less_their_mean():
    weight, bias = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    x = torch.randn(30, 5, dtype=torch.float64) + 1
    moments = Moments(x.mT @ x / 30, x.mean(0), None, 30)
    keys = torch.nn.functional.linear(x - x.mean(0), weight).view(30, 2, 3).transpose(0, 1)
    centred = head_moments(weight, bias, moments, heads=2, centred=True)
    assert torch.allclose(centred, keys.mT @ keys / 30, atol=1e-12)


def test_heads_of_few_tokens_have_no_directions_to_lose():
    """3 tokens span 3 of 6 directions: width 3 is exact, and the empty ones bring no NaN."""
    made = heads(tokens=3)
    maps = query_key(made.summed, made.key_moments).at(4)
    assert maps.error < 1e-7
    assert error_of(made, maps) < 1e-7


def test_features_beyond_what_the_tokens_span_are_empty():
    """Their moments are what rounding leaves of a zero, 1e-16 of the largest: an inverse of that would be 1e8."""
    made = heads(tokens=3, width=12)
    maps = query_key(made.summed, made.key_moments).at(12)
    assert maps.query[:, :3].abs().amax() > 0.1
    assert maps.query[:, 3:].abs().amax() < 1e-5
    assert maps.key[:, 3:].abs().amax() < 1e-5


def test_silent_heads_give_zeros():
    maps = query_key(torch.zeros(1, 4, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[None]).at(2)
    assert maps.error == 0
    assert not maps.query.any()


@pytest.mark.parametrize("width", [0, 7, 2.0, True])
def test_a_width_that_heads_do_not_have_is_refused(width):
    made = heads()
    with pytest.raises(RankError, match=rf"width={width} must be a whole number within 1\.\.6"):
        query_key(made.summed, made.key_moments).at(width)


def test_moments_that_do_not_fit_are_refused():
    made = heads()
    with pytest.raises(ShapeError, match=r"query \(4, 6, 6\) and key \(2, 6, 6\) must both be \(G, K, K\)"):
        query_key(made.query_moments, made.key_moments)
    moments = Moments(torch.eye(4), torch.zeros(4), None, 1)
    with pytest.raises(ShapeError, match=r"weight \(6, 5\) reads D=5 features; the moments are of 4"):
        head_moments(torch.ones(6, 5), None, moments, heads=2)
    for number in (4, 0, -2):
        with pytest.raises(ShapeError, match=rf"weight \(6, 4\) must be \(H K, D\) with H={number} heads"):
            head_moments(torch.ones(6, 4), None, moments, heads=number)
    with pytest.raises(ShapeError, match=r"bias \(4,\) must be \(H K,\) = \(6,\)"):
        head_moments(torch.ones(6, 4), torch.ones(4), moments, heads=2)


def test_moments_with_nan_are_refused():
    moments = Moments(torch.full((4, 4), float("nan")), torch.zeros(4), None, 1)
    with pytest.raises(NonFiniteError, match=r"weight \(6, 4\), its bias or the moments .* hold NaN or Inf"):
        head_moments(torch.ones(6, 4), None, moments, heads=2)
