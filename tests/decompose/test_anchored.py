"""Anchored factors: from the compressed input to the dense output, as near as any weight of their rank comes."""

import numpy as np
import pytest
import torch

from narrows._values import Moments
from narrows.decompose import anchored, weighted
from narrows.errors import InputError, NonFiniteError, ShapeError

U = 2.0**-53
SIZES = pytest.mark.parametrize(("E", "D"), [(7, 10), (10, 7), (8, 8)])
GRADIENTS = pytest.mark.parametrize("has_gradients", [False, True], ids=["outputs", "nats"])
NO_SHRINKAGE = {"shrink_inputs": 0.0, "shrink_gradients": 0.0}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Layer:
    """A weight, what enters it in the dense (x) and in the compressed model (moved), and gradients."""

    def __init__(self, E, D, *, count=80, has_gradients=True):
        self.weight = normal(E, D, seed=1)
        self.x = normal(count, D, seed=2) @ normal(D, D, seed=3) + 1
        self.moved = self.x @ (torch.eye(D, dtype=torch.float64) + 0.3 * normal(D, D, seed=4)) + normal(count, D) / 2
        self.gradients = normal(count, E, seed=5) @ normal(E, E, seed=6) if has_gradients else None
        self.count = count

    def moment(self, left, right):
        return left.mT @ right / self.count

    @property
    def curvature(self):
        return None if self.gradients is None else self.moment(self.gradients, self.gradients)

    def anchored(self, **options):
        return anchored(
            self.weight,
            self.moment(self.x, self.moved),
            self.moment(self.moved, self.moved),
            gradients_EE=self.curvature,
            dense_inputs_DD=self.moment(self.x, self.x),
            **options,
        )

    def loss(self, product):
        """Return the mean over tokens of the weighted squared error of the outputs, halved with gradients."""
        apart = self.x @ self.weight.mT - self.moved @ product.mT
        if self.curvature is None:
            return float((apart**2).sum(dim=1).mean())
        return float(((apart @ self.curvature) * apart).sum(dim=1).mean()) / 2

    def allowed(self):
        """Squares err by rounding of products and of one solve: 100 n u of the condition times the loss of nothing."""
        condition = float(torch.linalg.cond(self.moment(self.moved, self.moved)))
        return 100 * max(self.weight.shape) * U * condition * self.loss(torch.zeros_like(self.weight))


@SIZES
@GRADIENTS
def test_the_loss_over_tokens_is_the_constant_and_the_damage(E, D, has_gradients):
    layer = Layer(E, D, has_gradients=has_gradients)
    result = layer.anchored(**NO_SHRINKAGE)
    assert result.method == "anchored"
    assert result.is_in_nats == has_gradients
    assert result.constant > 0
    for rank in range(1, result.rank + 1):
        measured = layer.loss(result.factors(rank).dense())
        assert result.constant + result.damage(rank) == pytest.approx(measured, abs=layer.allowed())


@SIZES
@GRADIENTS
def test_the_full_rank_is_least_squares(E, D, has_gradients):
    """The best weight without a limit on its rank does not depend on the gradients; its loss is the constant."""
    layer = Layer(E, D, has_gradients=has_gradients)
    result = layer.anchored(**NO_SHRINKAGE)
    solved = np.linalg.lstsq(layer.moved.numpy(), (layer.x @ layer.weight.mT).numpy(), rcond=None)[0]
    assert torch.allclose(result.factors(result.rank).dense(), torch.from_numpy(solved).mT, atol=1e-9)
    assert result.constant == pytest.approx(layer.loss(torch.from_numpy(solved).mT), abs=layer.allowed())


@SIZES
@GRADIENTS
def test_alternating_least_squares_finds_no_better_pair(E, D, has_gradients):
    """Brute force over tokens, from the answer and from three random starts."""
    layer = Layer(E, D, has_gradients=has_gradients)
    rank = 3
    factors = layer.anchored(**NO_SHRINKAGE).factors(rank)
    reached = layer.loss(factors.dense())
    left = torch.eye(E, dtype=torch.float64) if layer.curvature is None else layer.curvature
    half = torch.linalg.cholesky(left).mT  # ||half error|| is the weighted error
    wanted = layer.x @ layer.weight.mT
    for b in (factors.b, *(normal(rank, E, seed=seed) for seed in (20, 21, 22))):
        for _ in range(200):
            narrow = torch.linalg.lstsq((b @ half.mT).mT, (wanted @ half.mT).mT).solution.mT
            a = torch.linalg.lstsq(layer.moved, narrow).solution.mT
            b = torch.linalg.lstsq(layer.moved @ a.mT, wanted).solution  # noqa: PLW2901 (the other half of the step)
        assert layer.loss(b.mT @ a) >= reached * (1 - 1e-9)


@SIZES
def test_without_a_shift_it_is_the_weighted_factorisation(E, D):
    layer = Layer(E, D)
    layer.moved = layer.x
    moments = Moments(layer.moment(layer.x, layer.x), layer.x.mean(dim=0), layer.curvature, layer.count)
    ours, theirs = layer.anchored(), weighted(layer.weight, moments, method="two-sided")
    assert np.allclose(ours.sigma, theirs.sigma, rtol=1e-9)
    assert torch.allclose(ours.factors(4).dense(), theirs.factors(4).dense(), atol=1e-10)
    assert 0 <= ours.constant <= 1e-15 * ours.norm**2  # rounding of float64, squared


@SIZES
@GRADIENTS
def test_shrinkage_is_a_share_of_tokens_that_did_not_shift(E, D, has_gradients):
    """D tokens x = x' = sqrt(D m) e_j have the moment m I; the sample counts for 0.8 of all tokens."""
    share = 0.2
    layer = Layer(E, D, has_gradients=has_gradients)
    result = layer.anchored(shrink_inputs=share, shrink_gradients=0)
    level = float(layer.moment(layer.moved, layer.moved).diagonal().mean())
    unshifted = torch.eye(D, dtype=torch.float64) * (share * level * layer.count / (1 - share)) ** 0.5
    layer.x, layer.moved = torch.cat((layer.x, unshifted)), torch.cat((layer.moved, unshifted))
    for rank in (1, 4, result.rank):
        measured = (1 - share) * layer.loss(result.factors(rank).dense()) * len(layer.x) / layer.count
        assert result.constant + result.damage(rank) == pytest.approx(measured, abs=layer.allowed())


def test_a_direction_that_was_never_taken_keeps_the_weight():
    layer = Layer(7, 10, count=4)
    result = layer.anchored(**NO_SHRINKAGE)
    unseen = torch.linalg.svd(layer.moved).Vh[4:]
    product = result.factors(7).dense()
    assert torch.allclose(product @ unseen.mT, layer.weight @ unseen.mT, atol=1e-7)
    assert torch.allclose(layer.moved @ product.mT, layer.x @ layer.weight.mT, atol=1e-7)
    assert result.constant == pytest.approx(0.0, abs=1e-9)


def test_the_constant_is_unknown_without_the_dense_inputs():
    layer = Layer(7, 10)
    result = anchored(layer.weight, layer.moment(layer.x, layer.moved), layer.moment(layer.moved, layer.moved))
    assert result.constant is None
    assert not result.is_in_nats


# Canaries


@SIZES
def test_factors_that_do_not_know_of_the_shift_are_worse(E, D):
    layer = Layer(E, D)
    moments = Moments(layer.moment(layer.moved, layer.moved), layer.moved.mean(dim=0), layer.curvature, layer.count)
    blind = weighted(layer.weight, moments, method="two-sided", **NO_SHRINKAGE)
    assert layer.loss(blind.factors(4).dense()) > 1.2 * layer.loss(layer.anchored(**NO_SHRINKAGE).factors(4).dense())


@SIZES
def test_a_cross_moment_the_wrong_way_round_is_worse(E, D):
    layer = Layer(E, D)
    cross, inputs = layer.moment(layer.x, layer.moved), layer.moment(layer.moved, layer.moved)
    wrong = anchored(layer.weight, cross.mT, inputs, gradients_EE=layer.curvature, **NO_SHRINKAGE)
    assert layer.loss(wrong.factors(4).dense()) > 1.2 * layer.loss(layer.anchored(**NO_SHRINKAGE).factors(4).dense())


def test_gradients_matter():
    layer = Layer(7, 10)
    cross, inputs = layer.moment(layer.x, layer.moved), layer.moment(layer.moved, layer.moved)
    without = anchored(layer.weight, cross, inputs, **NO_SHRINKAGE)
    assert layer.loss(without.factors(3).dense()) > 1.2 * layer.loss(layer.anchored(**NO_SHRINKAGE).factors(3).dense())


# Bad input


def test_a_cross_moment_of_another_layer_is_refused():
    with pytest.raises(ShapeError, match=r"cross \(9, 9\) must be \(10, 10\) for this weight"):
        anchored(normal(7, 10), torch.eye(9), torch.eye(10))
    with pytest.raises(ShapeError, match=r"inputs \(9, 9\) must be \(10, 10\) for this weight"):
        anchored(normal(7, 10), torch.eye(10), torch.eye(9))
    with pytest.raises(ShapeError, match=r"gradients \(10, 10\) must be \(7, 7\) for this weight"):
        anchored(normal(7, 10), torch.eye(10), torch.eye(10), gradients_EE=torch.eye(10))
    with pytest.raises(ShapeError, match=r"dense_inputs \(9, 9\) must be \(10, 10\) for this weight"):
        anchored(normal(7, 10), torch.eye(10), torch.eye(10), dense_inputs_DD=torch.eye(9))


def test_cross_and_inputs_in_each_others_place_are_refused():
    layer = Layer(7, 10)
    cross, inputs = layer.moment(layer.x, layer.moved), layer.moment(layer.moved, layer.moved)
    with pytest.raises(InputError, match=r"inputs is not symmetric: .* is this a cross moment"):
        anchored(layer.weight, inputs, cross)


def test_a_cross_moment_with_a_nan_is_refused():
    cross = torch.eye(10)
    cross[3, 4] = float("nan")
    with pytest.raises(NonFiniteError, match=r"cross \(10, 10\) holds 1 NaN and 0 Inf; .* index \(3, 4\)"):
        anchored(normal(7, 10), cross, torch.eye(10))
