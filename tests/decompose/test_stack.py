"""Several weights that read one input as one: against the definition in float64, and against each by itself."""

import itertools

import numpy as np
import pytest
import torch

from narrows._values import Moments
from narrows.decompose import anchored_stack, weighted, weighted_stack
from narrows.errors import DtypeError, InputError, ShapeError

U = 2.0**-53
D = 10
SIZES = pytest.mark.parametrize("sizes", [(7, 9), (2, 3), (6, 6, 4)], ids=str)
NO_SHRINKAGE = {"shrink_inputs": 0.0, "shrink_gradients": 0.0}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Layers:
    """Weights, what enters all of them (x, in the compressed model moved), and gradients of each."""

    def __init__(self, sizes, *, count=80, has_gradients=True):
        self.weights = [normal(E, D, seed=E + place) for place, E in enumerate(sizes)]
        self.x = normal(count, D, seed=2) @ normal(D, D, seed=3) + 1
        self.moved = self.x @ (torch.eye(D, dtype=torch.float64) + 0.3 * normal(D, D, seed=4)) + normal(count, D) / 2
        self.gradients = [
            normal(count, E, seed=50 + place) @ normal(E, E, seed=60 + place) * (1 + 3 * place)
            for place, E in enumerate(sizes)
        ]
        self.moments = [
            Moments(self.x.mT @ self.x / count, self.x.mean(0), g.mT @ g / count if has_gradients else None, count)
            for g in self.gradients
        ]
        self.count = count

    @property
    def stacked(self):
        return torch.cat(self.weights)

    def damage(self, product, read=None):
        """Return the sum over layers of mean (g . (W x - W' x'))^2 / 2, gradients and inputs taken as independent."""
        apart = self.x @ self.stacked.mT - (self.x if read is None else read) @ product.mT
        parts = apart.split([len(one) for one in self.weights], dim=1)
        return sum(
            float(((part @ one.gradients) * part).sum(1).mean()) / 2
            for part, one in zip(parts, self.moments, strict=True)
        )

    def allowed(self):
        """Squares err by rounding of products and of one solve: 100 n u of the condition times all that can be lost."""
        condition = float(torch.linalg.cond(self.moments[0].inputs))
        return 100 * len(self.stacked) * U * condition * self.damage(torch.zeros_like(self.stacked))


def root(moment):
    """Return the symmetric root of a moment."""
    values, vectors = np.linalg.eigh(moment.numpy())
    return vectors @ np.diag(np.sqrt(values)) @ vectors.T


@SIZES
def test_the_factors_are_the_truncated_svd_of_the_stack_between_the_roots_of_its_moments(sizes):
    layers = Layers(sizes)
    left = torch.block_diag(*(torch.from_numpy(root(one.gradients)) for one in layers.moments)).numpy()
    right = root(layers.moments[0].inputs)
    u, sigma, vt = np.linalg.svd(left @ layers.stacked.numpy() @ right, full_matrices=False)
    made = weighted_stack(layers.weights, layers.moments, method="two-sided", **NO_SHRINKAGE)

    assert made.method == "two-sided"
    assert made.is_in_nats
    assert made.rank == min(D, sum(sizes))
    for rank in range(1, made.rank + 1):
        best = np.linalg.solve(left, (u[:, :rank] * sigma[:rank]) @ vt[:rank]) @ np.linalg.inv(right)
        product = made.factors(rank).dense()
        assert layers.damage(product) == pytest.approx(layers.damage(torch.from_numpy(best)), abs=layers.allowed())
        assert layers.damage(product) == pytest.approx((sigma[rank:] ** 2).sum() / 2, abs=layers.allowed())
        assert made.damage(rank) == pytest.approx((sigma[rank:] ** 2).sum() / 2, abs=layers.allowed())


@SIZES
@pytest.mark.parametrize("shrinkage", [NO_SHRINKAGE, {}], ids=["as it is", "shrunk"])
def test_the_damage_lies_between_that_of_the_layers_by_themselves_at_the_rank_and_at_parts_of_it(sizes, shrinkage):
    layers = Layers(sizes)
    made = weighted_stack(layers.weights, layers.moments, method="two-sided", **shrinkage)
    own = [
        weighted(weight, moments, method="two-sided", **shrinkage)
        for weight, moments in zip(layers.weights, layers.moments, strict=True)
    ]

    assert made.damage(0) == pytest.approx(sum(one.damage(0) for one in own), rel=1e-12)
    assert made.damage(made.rank) == 0.0
    for rank in range(1, made.rank):
        lower = sum(one.damage(min(rank, one.rank)) for one in own)
        assert made.damage(rank) >= lower - layers.allowed()
    # Canary: ranks that are a little smaller for each layer by itself are no lower bound.
    broken = [
        made.damage(rank) < sum(one.damage(max(min(rank, one.rank) - len(own), 0)) for one in own)
        for rank in range(1, made.rank)
    ]
    assert any(broken)
    for ranks in itertools.product(*(range(1, one.rank + 1) for one in own)):
        if sum(ranks) <= made.rank:
            apart = sum(one.damage(rank) for one, rank in zip(own, ranks, strict=True))
            assert made.damage(sum(ranks)) <= apart + layers.allowed()


def test_weights_of_one_direction_share_it_without_damage():
    layers = Layers((7, 9))
    basis = normal(3, D, seed=9)
    layers.weights = [normal(E, 3, seed=E) @ basis for E in (7, 9)]

    made = weighted_stack(layers.weights, layers.moments, method="two-sided")

    assert made.damage(3) < 1e-12 * made.damage(0) < made.damage(2)
    torch.testing.assert_close(made.factors(3).dense(), layers.stacked)


@SIZES
def test_one_sided_damage_is_the_sum_of_the_shares_of_the_outputs_that_are_lost(sizes):
    layers = Layers(sizes, has_gradients=False)
    layers.weights[0] *= 100
    made = weighted_stack(layers.weights, layers.moments, method="one-sided", **NO_SHRINKAGE)

    assert not made.is_in_nats
    assert made.damage(0) == pytest.approx(len(sizes), rel=1e-9)
    for rank in range(1, made.rank):
        parts = made.factors(rank).dense().split(sizes)
        lost = [
            float(((layers.x @ (weight - part).mT) ** 2).sum() / ((layers.x @ weight.mT) ** 2).sum())
            for weight, part in zip(layers.weights, parts, strict=True)
        ]
        assert made.damage(rank) == pytest.approx(sum(lost), abs=1e-9)


def test_a_weight_of_zeros_in_a_one_sided_stack_loses_nothing():
    layers = Layers((4, 5), has_gradients=False)
    layers.weights[1].zero_()

    made = weighted_stack(layers.weights, layers.moments, method="one-sided")

    assert made.damage(0) == pytest.approx(1.0)


@SIZES
def test_anchored_factors_lose_their_damage_more_than_the_full_rank_does(sizes):
    layers = Layers(sizes)
    joint = (layers.x.mT @ layers.moved / layers.count, layers.moved.mT @ layers.moved / layers.count)
    made = anchored_stack(layers.weights, layers.moments, *joint, **NO_SHRINKAGE)

    assert made.method == "anchored"
    best = torch.linalg.lstsq(layers.moved, layers.x @ layers.stacked.mT).solution.mT
    least = layers.damage(best, layers.moved)
    plain = weighted_stack(layers.weights, layers.moments, method="two-sided", **NO_SHRINKAGE)
    for rank in range(1, made.rank + 1):
        measured = layers.damage(made.factors(rank).dense(), layers.moved)
        assert measured == pytest.approx(least + made.damage(rank), abs=100 * layers.allowed())
        # Canary: factors for the dense input lose more from the compressed one.
        assert measured < layers.damage(plain.factors(rank).dense(), layers.moved)


@pytest.mark.parametrize("has_gradients", [False, True])
def test_where_the_input_did_not_move_anchored_is_plain(has_gradients):
    layers = Layers((7, 9), has_gradients=has_gradients)
    inputs = layers.moments[0].inputs

    made = anchored_stack(layers.weights, layers.moments, inputs, inputs)

    method = "two-sided" if has_gradients else "one-sided"
    plain = weighted_stack(layers.weights, layers.moments, method=method)
    np.testing.assert_allclose(made.damages, plain.damages, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(made.factors(4).dense(), plain.factors(4).dense())


@pytest.mark.parametrize("method", ["two-sided", "one-sided"])
def test_the_pivot_form_of_the_stack_is_the_same_weight_with_fewer_numbers(method):
    layers = Layers((7, 9))
    made = weighted_stack(layers.weights, layers.moments, method=method)

    factors, pivot = made.factors(4), made.pivot(4)

    torch.testing.assert_close(pivot.dense(), factors.dense())
    assert pivot.rows.numel() + pivot.rest.numel() == 4 * (D + 16 - 4) < factors.a.numel() + factors.b.numel()


def test_what_is_no_stack_is_refused():
    layers = Layers((4, 5))
    with pytest.raises(InputError, match="2 weights and 1 moments: give one of each"):
        weighted_stack(layers.weights, layers.moments[:1], method="two-sided")
    with pytest.raises(InputError, match="0 weights and 0 moments"):
        weighted_stack([], [], method="two-sided")
    with pytest.raises(ShapeError, match=r"\(4, 10\), \(5, 8\)\] must be \(E, D\) with one D"):
        weighted_stack([layers.weights[0], normal(5, 8)], layers.moments, method="two-sided")
    with pytest.raises(DtypeError, match=r"torch\.float64, 'cpu'\), \(torch\.float32, 'cpu'\)\]: give all the same"):
        weighted_stack([layers.weights[0], layers.weights[1].float()], layers.moments, method="two-sided")
    with pytest.raises(InputError, match=r"needs moments\.gradients"):
        weighted_stack(layers.weights, Layers((4, 5), has_gradients=False).moments, method="two-sided")
