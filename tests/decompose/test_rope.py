"""Heads with rotary positions: averages over distances are exact, and narrowing knows about them."""

from __future__ import annotations

import itertools

import pytest
import torch

from decompose.heads import heads, turned
from narrows.decompose import query_key, rotary_query_key, rotary_rank
from narrows.decompose._rope import Rotations
from narrows.errors import InputError, RankError, ShapeError

CONTEXT = 12
THETA = torch.tensor([2.0, 0.6, 0.01], dtype=torch.float64)  # one fast, one slow, one that hardly turns
DISTANCES = torch.arange(CONTEXT, dtype=torch.float64)
SHARES = (CONTEXT - DISTANCES) / (CONTEXT - DISTANCES).sum()


def weighted_scores(queries, keys, query_theta, key_theta=None):
    """Return scores of every query and key at every distance, times the root of its share: (H, C, N, N)."""
    key_theta = query_theta if key_theta is None else key_theta
    angles = DISTANCES[:, None, None, None] * key_theta[:, None]
    far = turned(keys[None], -angles.expand(-1, *keys.shape[:2], -1)).repeat_interleave(
        len(queries) // len(keys), dim=1
    )
    return SHARES.sqrt()[:, None, None, None] * (queries[None] @ far.mT)


def relative_error(made, narrow):
    whole = weighted_scores(made.queries, made.keys, THETA.expand(len(made.keys), -1))
    return float(torch.linalg.vector_norm(narrow - whole) / torch.linalg.vector_norm(whole))


def width_error(made, maps):
    queries = made.queries @ maps.query.repeat_interleave(made.share, dim=0).mT
    return relative_error(made, weighted_scores(queries, made.keys @ maps.key.mT, THETA[maps.pairs]))


def rank_error(made, factors):
    queries = made.queries
    if factors.query_down is not None:
        queries = queries @ (factors.query_up @ factors.query_down).mT
    keys = made.keys @ (factors.key_up @ factors.key_down).mT
    return relative_error(made, weighted_scores(queries, keys, THETA.expand(len(keys), -1)))


def width(made, context=CONTEXT):
    return rotary_query_key(made.summed, made.key_moments, frequencies=THETA, context=context)


def rank(made, context=CONTEXT):
    return rotary_rank(made.query_moments, made.key_moments, frequencies=THETA, context=context)


@pytest.mark.parametrize("backwards", [False, True])
def test_turned_moments_are_the_averages_over_all_distances(backwards):
    made = heads(groups=1)
    second = made.key_moments
    rotations = Rotations.causal(THETA, CONTEXT)
    rows, columns = torch.tensor([[0, 1, 2]]), torch.tensor([[2, 0]])
    block = second[:, :, [0, 1, 3, 4]]
    average = torch.zeros(6, 4, dtype=torch.float64)
    sign = -1 if backwards else 1
    for distance, share in zip(DISTANCES, SHARES, strict=True):
        left = turned(torch.eye(6, dtype=torch.float64), (sign * distance * THETA).expand(6, -1)).mT
        right = turned(torch.eye(4, dtype=torch.float64), (sign * distance * THETA[[2, 0]]).expand(4, -1)).mT
        average += share * left @ block[0] @ right.mT
    assert torch.allclose(rotations.turned(block, rows, columns, backwards=backwards)[0], average, atol=1e-12)
    assert not torch.allclose(rotations.turned(block, rows, columns, backwards=not backwards)[0], average, atol=1e-3)


@pytest.mark.parametrize("context", [1, 2, 7, 64, 1000, 8191])
def test_averages_over_a_long_context_are_the_sums_they_stand_for(context):
    distances = torch.arange(context, dtype=torch.float64)
    shares = (context - distances) / (context - distances).sum()
    theta = torch.tensor([3.1, 1.0, 1e-2, 1e-5, 0.0], dtype=torch.float64)
    single = (shares * torch.exp(1j * theta[:, None] * distances)).sum(dim=-1)
    assert torch.allclose(Rotations.causal(theta, context).single, single, rtol=0, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("size", [2, 4])
def test_the_predicted_error_is_that_of_all_pairs_at_all_distances(size, groups):
    made = heads(groups=groups, bias=True)
    maps = width(made).at(size)
    assert maps.pairs.shape == (groups, size // 2)
    assert width_error(made, maps) == pytest.approx(maps.error, rel=1e-6)


def test_the_whole_width_changes_nothing():
    made = heads()
    maps = width(made).at(6)
    assert maps.error == 0
    assert torch.equal(maps.pairs, torch.tensor([[0, 1, 2], [0, 1, 2]]))
    assert width_error(made, maps) < 1e-14


@pytest.mark.parametrize("seed", range(3))
def test_narrow_heads_lose_less_than_the_best_selection_of_pairs(seed):
    """Selection takes features as they are; all sets of pairs are tried here for it."""
    made = heads(groups=1, seed=seed)
    found = []
    for kept in itertools.combinations(range(3), 2):
        features = [*kept, *(3 + f for f in kept)]
        narrow = weighted_scores(made.queries[..., features], made.keys[..., features], THETA[list(kept)][None])
        found.append(relative_error(made, narrow))
    assert width(made).at(4).error < min(found)


def alternated(made, pairs, seed):
    """Return the error that least squares in turn reach from a random start with these frequencies."""
    moments = width(made).moments
    generator = torch.Generator().manual_seed(seed)
    key = torch.randn(len(made.keys), 2 * pairs.shape[-1], 6, generator=generator, dtype=torch.float64)
    for _ in range(100):
        query, kept = moments.best_query(key, pairs)
        key = moments.best_key(query, pairs)
    return float((1 - kept.sum() / moments.total().sum()).clamp(min=0).sqrt())


@pytest.mark.parametrize("seed", range(3))
def test_no_set_of_frequencies_and_no_start_does_much_better(seed):
    """Backward elimination and turns of least squares promise no optimum: within 3 % of what a search finds."""
    made = heads(groups=1, seed=seed)
    for size in (1, 2):
        sets = [torch.tensor([kept]) for kept in itertools.combinations(range(3), size)]
        best = min(alternated(made, pairs, start) for pairs in sets for start in range(3))
        assert width(made).at(2 * size).error <= 1.03 * best


def test_each_turn_is_the_least_squares_optimum():
    made = heads(groups=1)
    maps, moments = width(made).at(2), width(made).moments
    query, kept = moments.best_query(maps.key, maps.pairs)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = query + 1e-3 * torch.randn(query.shape, generator=generator, dtype=torch.float64)
        narrow = weighted_scores(made.queries @ other.mT, made.keys @ maps.key.mT, THETA[maps.pairs])
        assert relative_error(made, narrow) > float((1 - kept.sum() / moments.total().sum()).sqrt())


@pytest.mark.parametrize("sides", ["both", "key"])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_error_of_a_projection_is_predicted(size, sides):
    made = heads(bias=True)
    factors = rank(made).at(size, sides=sides)
    assert (factors.query_down is None) == (sides == "key")
    assert rank_error(made, factors) == pytest.approx(factors.error, rel=1e-6)


def test_the_whole_rank_changes_nothing():
    made = heads()
    assert rank(made).at(6).error < 1e-6
    assert rank_error(made, rank(made).at(6)) < 1e-6


@pytest.mark.parametrize("size", [1, 3])
def test_no_key_projection_of_this_rank_is_better(size):
    """Factors improved in turn by least squares, from random starts, against the closed form for exact queries."""
    made = heads(groups=1)
    best = rank(made).at(size, sides="key").error
    cost, second = rank(made).costs()[1][0], made.key_moments[0]
    total = float((cost * second).sum())
    found = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        down = torch.randn(size, 6, generator=generator, dtype=torch.float64)
        for _ in range(300):
            up = torch.linalg.lstsq(down @ second @ down.mT, down @ second).solution.mT
            down = torch.linalg.lstsq(up.mT @ cost @ up, up.mT @ cost).solution
        change = up @ down - torch.eye(6, dtype=torch.float64)
        found.append((float((cost * (change @ second @ change.mT)).sum()) / total) ** 0.5)
    assert best <= min(found) * (1 + 1e-9)
    assert min(found) == pytest.approx(best, rel=1e-3)


def test_costs_are_what_a_change_of_the_queries_or_keys_does_to_the_scores():
    made = heads(bias=True)
    query_cost, key_cost = rank(made).costs()
    generator = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in (made.queries, made.keys))
    theta, tokens = THETA.expand(len(made.keys), -1), made.keys.shape[1]
    for change, scores, cost in (
        (queries, weighted_scores(queries, made.keys, theta), query_cost),
        (keys, weighted_scores(made.queries, keys, theta), key_cost),
    ):
        predicted = tokens * float((change @ cost * change).sum())
        assert float(scores.square().sum()) == pytest.approx(predicted, rel=1e-10)


def test_without_distances_the_projection_is_the_joint_form():
    """A context of one token turns nothing."""
    made = heads(bias=True)
    joint = query_key(made.summed, made.key_moments)
    for size in (1, 3, 5):
        assert rank(made, context=1).at(size).error == pytest.approx(joint.at(size).error, rel=1e-6)


def test_maps_that_ignore_positions_are_worse_under_them():
    """The joint closed form is best at distance 0 and does not commute with turns."""
    made = heads(groups=1)
    for size in (2, 3):
        maps = query_key(made.summed, made.key_moments).at(size)
        up = torch.linalg.pinv(maps.key)
        keys = made.keys @ (up @ maps.key).mT
        queries = made.queries @ (torch.linalg.pinv(maps.query) @ maps.query).mT
        naive = relative_error(made, weighted_scores(queries, keys, THETA[None]))
        assert rank(made).at(size).error < 0.9 * naive


def test_a_longer_context_turns_slow_pairs_too():
    made = heads(groups=1)
    errors = [width(made, context).at(2).error for context in (1, 12, 1000)]
    assert errors == sorted(errors)
    assert errors[0] < 0.8 * errors[2]


def test_what_does_not_fit_is_refused():
    made = heads()
    with pytest.raises(RankError, match=r"width=3 must be a whole number within 2\.\.6, .* a multiple of 2"):
        width(made).at(3)
    with pytest.raises(RankError, match=r"width=7 must be a whole number within 1\.\.6"):
        rank(made).at(7)
    with pytest.raises(InputError, match=r"sides='query' must be 'both' or 'key'"):
        rank(made).at(2, sides="query")
    with pytest.raises(InputError, match=r"context=0 must be at least 1 token"):
        width(made, context=0)
    with pytest.raises(ShapeError, match=r"frequencies \(2,\) must be \(P,\) with 2 P = K = 6"):
        rotary_query_key(made.summed, made.key_moments, frequencies=THETA[:2], context=4)
    with pytest.raises(ShapeError, match=r"frequencies \(3, 1\) must be \(P,\), one for each pair of features"):
        Rotations.causal(THETA[:, None], 4)
    with pytest.raises(ShapeError, match=r"query \(3, 6, 6\) and key \(2, 6, 6\) .* G dividing H"):
        rotary_rank(made.query_moments[:3], made.key_moments, frequencies=THETA, context=4)
