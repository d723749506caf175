"""Data-aware factors: the best there are in their norm, at every rank, and their damage is what was predicted."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from narrows import factorize
from narrows._values import Moments
from narrows.decompose import weighted
from narrows.errors import DtypeError, InputError, NonFiniteError, RankError, ShapeError

U = 2.0**-53
LARGER = [(12, 20), (20, 12), (16, 16)]
SIZES = pytest.mark.parametrize(("E", "D"), [*LARGER, (1, 9), (9, 1)])
METHODS = pytest.mark.parametrize("method", ["one-sided", "two-sided"])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(count, size, seed):
    """Return correlated tokens with a mean and with features of very different scale, (count, size)."""
    scale = torch.logspace(1, -1, size, dtype=torch.float64)
    return (normal(count, size, seed=seed) * scale) @ normal(size, size, seed=seed + 1) + scale


def second(x_TD):
    return x_TD.mT @ x_TD / len(x_TD)


def moments_of(E, D, *, count=200, seed=0):
    x_TD, g_TE = tokens(count, D, seed), tokens(count, E, seed + 10) * 1e-2
    return Moments(second(x_TD), x_TD.mean(dim=0), second(g_TE), count)


def root(moment):
    values, vectors = np.linalg.eigh(moment.numpy())
    return torch.from_numpy((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def shrunk(moment, share):
    return (1 - share) * moment + share * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)


def sides(moments, method, shares=(0.0, 0.0)):
    """Return G and C as the method weighs with them."""
    E = len(moments.gradients)
    left = shrunk(moments.gradients, shares[1]) if method == "two-sided" else torch.eye(E, dtype=torch.float64)
    return left, shrunk(moments.inputs, shares[0])


def brute_force(weight, left, right):
    """Return the spectrum, and the best weight of each rank, from explicit symmetric roots and their inverses."""
    left_root, right_root = root(left), root(right)
    u, sigma, vt = np.linalg.svd((left_root @ weight @ right_root).numpy(), full_matrices=False)
    best = [
        torch.linalg.solve(left_root, torch.from_numpy((u[:, :r] * sigma[:r]) @ vt[:r])) @ torch.linalg.inv(right_root)
        for r in range(len(sigma) + 1)
    ]
    return sigma, best


def squared_norm(matrix, left, right):
    return float(((left @ matrix) * (matrix @ right)).sum())


def tolerance(weight, left, right):
    """Squares err by rounding of four products and one eigendecomposition: 10 n u of the product of all norms."""
    norms = [float(torch.linalg.matrix_norm(x, 2)) for x in (left, weight, weight, right)]
    return 10 * max(weight.shape) * U * np.prod(norms)


@SIZES
@METHODS
@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.02, 0.1)])
def test_every_rank_is_as_good_as_brute_force(E, D, method, shares):
    weight, moments = normal(E, D, seed=3), moments_of(E, D)
    left, right = sides(moments, method, shares)
    result = weighted(weight, moments, method=method, shrink_inputs=shares[0], shrink_gradients=shares[1])
    sigma, best = brute_force(weight, left, right)
    allowed = tolerance(weight, left, right)
    assert np.abs(result.sigma**2 - sigma**2).max() <= allowed
    assert result.norm**2 == pytest.approx((sigma**2).sum(), abs=allowed)
    for rank in range(1, result.rank + 1):
        product = result.factors(rank).dense()
        assert squared_norm(weight - product, left, right) == pytest.approx(
            squared_norm(weight - best[rank], left, right), abs=allowed
        )


@pytest.mark.parametrize(("E", "D"), [(12, 20), (20, 12)])
@METHODS
def test_the_best_weight_itself_is_that_of_brute_force(E, D, method):
    weight, moments = normal(E, D, seed=3), moments_of(E, D)
    left, right = sides(moments, method, (0.02, 0.1))
    _, best = brute_force(weight, left, right)
    result = weighted(weight, moments, method=method)
    for rank in (1, 5, 12):
        assert torch.allclose(result.factors(rank).dense(), best[rank], atol=1e-8)


def test_no_alternating_least_squares_step_finds_a_better_pair():
    """Each step solves for one factor exactly with the other held; at the optimum none moves."""
    weight, moments = normal(9, 7, seed=3), moments_of(9, 7)
    left, right = sides(moments, "two-sided")
    factors = weighted(weight, moments, method="two-sided", shrink_inputs=0, shrink_gradients=0).factors(3)
    a, b = factors.a, factors.b
    reached = squared_norm(weight - b.mT @ a, left, right)
    better_a = torch.linalg.solve(b @ left @ b.mT, b @ left @ weight)
    better_b = torch.linalg.solve(a @ right @ a.mT, a @ right @ weight.mT)
    for product in (b.mT @ better_a, better_b.mT @ a):
        assert squared_norm(weight - product, left, right) == pytest.approx(reached, rel=1e-9)


@SIZES
def test_one_sided_damage_is_the_mean_squared_error_of_the_outputs(E, D):
    weight, x_TD = normal(E, D, seed=3), tokens(50, D, 0)
    moments = Moments(second(x_TD), x_TD.mean(dim=0), None, 50)
    result = weighted(weight, moments, method="one-sided", shrink_inputs=0)
    assert not result.is_in_nats
    allowed = tolerance(weight, torch.eye(E, dtype=torch.float64), moments.inputs)
    for rank in range(1, result.rank + 1):
        error = x_TD @ (weight - result.factors(rank).dense()).mT
        assert result.damage(rank) == pytest.approx(float((error**2).sum(dim=1).mean()), abs=allowed)


def test_two_sided_damage_is_the_growth_of_a_quadratic_loss():
    """loss(y) = (y - target)^T H (y - target) / 2 at its minimum: its gradients have the moment H of unit residuals."""
    x_TD, weight = tokens(60, 10, 0), normal(8, 10, seed=3)
    curvature = second(tokens(60, 8, 10))
    moments = Moments(second(x_TD), x_TD.mean(dim=0), curvature, 60)
    result = weighted(weight, moments, method="two-sided", shrink_inputs=0, shrink_gradients=0)
    assert result.is_in_nats
    for rank in range(1, 9):
        moved = x_TD @ (result.factors(rank).dense() - weight).mT
        growth = float(((moved @ curvature) * moved).sum(dim=1).mean()) / 2
        assert result.damage(rank) == pytest.approx(growth, abs=tolerance(weight, curvature, moments.inputs))


def test_damages_fall_to_zero_and_begin_with_the_whole_weight():
    moments = moments_of(12, 20)
    result = weighted(normal(12, 20), moments, method="two-sided")
    assert len(result.damages) == 13
    assert result.damages[-1] == 0.0
    assert result.damages[0] == pytest.approx(result.norm**2 / 2)
    assert all(after <= before for before, after in pairwise(result.damages))


@METHODS
def test_a_prefix_is_the_smaller_factorisation(method):
    result = weighted(normal(12, 20).float(), moments_of(12, 20), method=method)
    large, small = result.factors(9), result.factors(4)
    assert torch.equal(large.truncate(4).a, small.a)
    assert torch.equal(large.truncate(4).b, small.b)
    assert large.truncate(4).error() == small.error()


@SIZES
@METHODS
def test_the_full_rank_is_the_weight(E, D, method):
    weight = normal(E, D)
    product = weighted(weight, moments_of(E, D), method=method).factors(min(E, D)).dense()
    assert float((product - weight).abs().max()) < 1e-12


@METHODS
def test_the_certificate_speaks_of_the_weighted_norm(method):
    weight, moments = normal(12, 20), moments_of(12, 20)
    left, right = sides(moments, method, (0.02, 0.1))
    factors = weighted(weight, moments, method=method).factors(5)
    norm = squared_norm(weight, left, right)
    measured = np.sqrt(squared_norm(weight - factors.dense(), left, right) / norm)
    assert factors.certificate.method == method
    assert factors.certificate.rank == 12
    assert factors.certificate.norm == pytest.approx(np.sqrt(norm))
    assert factors.error() == pytest.approx(measured, rel=1e-9)
    assert factors.certificate.residual == pytest.approx(measured, rel=1e-9)


def test_the_residual_counts_rounding():
    weight, moments = normal(12, 20), moments_of(12, 20)
    left, right = sides(moments, "two-sided", (0.02, 0.1))
    factors = weighted(weight, moments, method="two-sided").factors(12, torch.bfloat16)
    product = factors.b.double().mT @ factors.a.double()
    measured = np.sqrt(squared_norm(weight - product, left, right) / squared_norm(weight, left, right))
    assert factors.a.dtype == torch.bfloat16
    assert factors.error() == 0.0
    assert factors.certificate.residual == pytest.approx(measured, rel=1e-6)
    assert measured > 1e-3


def test_rows_of_both_factors_have_equal_norms():
    factors = weighted(normal(12, 20), moments_of(12, 20), method="two-sided").factors(12)
    norms = torch.linalg.vector_norm(factors.a, dim=1), torch.linalg.vector_norm(factors.b, dim=1)
    assert torch.allclose(*norms, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_factors_have_the_weights_dtype_unless_another_is_asked_for(dtype):
    result = weighted(normal(12, 20).to(dtype), moments_of(12, 20), method="two-sided")
    assert result.factors(3).a.dtype == result.pivot(3).rows.dtype == dtype
    assert result.factors(3, torch.float32).b.dtype == result.pivot(3, torch.float32).rest.dtype == torch.float32


@METHODS
@pytest.mark.parametrize(("E", "D"), [(12, 20), (20, 12)])
def test_the_pivot_form_is_the_same_weight(E, D, method):
    result = weighted(normal(E, D), moments_of(E, D), method=method)
    for rank in (1, 7, 12):
        assert torch.allclose(result.pivot(rank).dense(), result.factors(rank).dense(), atol=1e-11)


# Canaries: what must be measurably worse


@pytest.mark.parametrize(("E", "D"), LARGER)
def test_plain_factors_are_worse_in_the_weighted_norm(E, D):
    weight, moments = normal(E, D), moments_of(E, D)
    left, right = sides(moments, "two-sided")
    rank = min(E, D) // 2
    ours = weighted(weight, moments, method="two-sided", shrink_inputs=0, shrink_gradients=0).factors(rank)
    plain = factorize(weight, rank=rank)
    assert squared_norm(weight - plain.dense(), left, right) > 2 * squared_norm(weight - ours.dense(), left, right)


def test_one_sided_factors_are_worse_in_the_two_sided_norm():
    weight, moments = normal(12, 20), moments_of(12, 20)
    left, right = sides(moments, "two-sided", (0.02, 0.1))
    one, two = (weighted(weight, moments, method=method).factors(6) for method in ("one-sided", "two-sided"))
    assert squared_norm(weight - one.dense(), left, right) > 1.2 * squared_norm(weight - two.dense(), left, right)


def test_swapped_moments_of_a_square_layer_are_worse():
    weight, moments = normal(16, 16), moments_of(16, 16)
    swapped = Moments(moments.gradients, moments.mean, moments.inputs, moments.tokens)
    left, right = sides(moments, "two-sided", (0.02, 0.1))
    ours, theirs = (weighted(weight, one, method="two-sided").factors(8).dense() for one in (moments, swapped))
    assert squared_norm(weight - theirs, left, right) > 2 * squared_norm(weight - ours, left, right)


# Moments that are not of full rank, and shrinkage


@METHODS
@pytest.mark.parametrize(("E", "D"), [(12, 20), (20, 12)])
def test_fewer_tokens_than_features_are_survived_without_shrinkage(E, D, method):
    weight, moments = normal(E, D), moments_of(E, D, count=5)
    left, right = sides(moments, method)
    result = weighted(weight, moments, method=method, shrink_inputs=0, shrink_gradients=0)
    smaller_is_inverted = method == "two-sided" or D < E
    assert result.floored == (min(E, D) - 5 if smaller_is_inverted else 0)
    assert torch.allclose(result.factors(12).dense(), weight, atol=1e-6)
    # Five tokens reach five directions, so rank 5 is as good as the weight; what was raised to the floor remains.
    floor = 20 * 2**-52 * float(torch.linalg.matrix_norm(left, 2) * torch.linalg.matrix_norm(right, 2))
    rest = squared_norm(weight - result.factors(5).dense(), left, right)
    assert rest <= tolerance(weight, left, right) + 12 * floor * float((weight**2).sum())


@METHODS
def test_shrinkage_needs_no_floor(method):
    assert weighted(normal(12, 20), moments_of(12, 20, count=1), method=method).floored == 0


def test_full_shrinkage_of_both_is_plain():
    weight, moments = normal(12, 20), moments_of(12, 20)
    result = weighted(weight, moments, method="two-sided", shrink_inputs=1, shrink_gradients=1)
    assert torch.allclose(result.factors(5).dense(), factorize(weight, rank=5).dense(), atol=1e-12)


@pytest.mark.parametrize(("E", "D"), [(8, 40), (40, 8)])
@METHODS
def test_only_the_smaller_side_is_decomposed(E, D, method, monkeypatch):
    seen = []
    for name in ("eigh", "cholesky_ex", "svd", "qr", "inv"):
        real = getattr(torch.linalg, name)
        monkeypatch.setattr(torch.linalg, name, lambda x, *a, _r=real, **k: (seen.append(x.shape), _r(x, *a, **k))[1])
    weighted(normal(E, D), moments_of(E, D), method=method)
    assert seen
    assert set(seen) == {(8, 8)}


@METHODS
def test_a_zero_weight_has_no_damage_and_zero_factors(method):
    result = weighted(torch.zeros(6, 8, dtype=torch.float64), moments_of(6, 8), method=method)
    assert result.damage(0) == 0.0
    assert not result.factors(3).dense().any()
    assert result.factors(3).certificate.residual == 0.0


@METHODS
def test_a_weight_of_low_rank_is_met_at_its_rank(method):
    weight = normal(12, 3) @ normal(3, 20, seed=1)
    result = weighted(weight, moments_of(12, 20), method=method)
    assert torch.allclose(result.factors(3).dense(), weight, atol=1e-10)
    assert torch.allclose(result.pivot(5).dense(), weight, atol=1e-6)


@pytest.mark.parametrize("power", [-40, 40])
def test_the_scale_of_weight_and_gradients_only_scales_the_result(power):
    weight, moments = normal(12, 20), moments_of(12, 20)
    scaled = Moments(moments.inputs, moments.mean, moments.gradients * 4.0**power, moments.tokens)
    base = weighted(weight, moments, method="two-sided")
    other = weighted(weight * 2.0**power, scaled, method="two-sided")
    assert np.allclose(other.sigma, base.sigma * 4.0**power, rtol=1e-9)
    assert torch.allclose(other.factors(5).dense(), base.factors(5).dense() * 2.0**power, rtol=1e-8, atol=0)


def test_the_weight_and_the_moments_stay_as_they_were():
    weight, moments = torch.nn.Parameter(normal(6, 5)), moments_of(6, 5)
    before = weight.detach().clone(), moments.inputs.clone(), moments.gradients.clone()
    factors = weighted(weight, moments, method="two-sided").factors(2)
    assert torch.equal(weight.detach(), before[0])
    assert torch.equal(moments.inputs, before[1])
    assert torch.equal(moments.gradients, before[2])
    assert not factors.a.requires_grad


def test_factors_are_copies():
    result = weighted(normal(6, 5), moments_of(6, 5), method="one-sided")
    result.factors(2).a.zero_()
    assert result.factors(2).a.any()


# Bad input


def test_two_sided_without_gradients_is_refused():
    moments = moments_of(6, 5)
    without = Moments(moments.inputs, moments.mean, None, moments.tokens)
    with pytest.raises(InputError, match=r"method='two-sided' needs moments\.gradients, .* or use method='one-sided'"):
        weighted(normal(6, 5), without, method="two-sided")


def test_moments_of_another_layer_are_refused():
    with pytest.raises(ShapeError, match=r"moments\.inputs \(6, 6\) must be \(5, 5\) for this weight"):
        weighted(normal(6, 5), moments_of(5, 6), method="two-sided")
    wrong = Moments(torch.eye(5), torch.zeros(5), torch.eye(5), 9)
    with pytest.raises(ShapeError, match=r"moments\.gradients \(5, 5\) must be \(6, 6\) for this weight"):
        weighted(normal(6, 5), wrong, method="two-sided")


@pytest.mark.parametrize("field", ["inputs", "gradients"])
def test_moments_with_a_nan_are_refused(field):
    moments = moments_of(6, 5)
    getattr(moments, field)[2, 3] = float("nan")
    with pytest.raises(NonFiniteError, match=rf"moments\.{field} \(.*\) holds 1 NaN and 0 Inf; .* at index \(2, 3\)"):
        weighted(normal(6, 5), moments, method="two-sided")


def test_one_sided_does_not_look_at_gradients():
    moments = moments_of(6, 5)
    moments.gradients[0, 0] = float("nan")
    assert weighted(normal(6, 5), moments, method="one-sided").rank == 5


@pytest.mark.parametrize("field", ["inputs", "gradients"])
def test_moments_of_nothing_are_refused(field):
    moments = moments_of(6, 5)
    getattr(moments, field).zero_()
    with pytest.raises(
        InputError, match=rf"diagonal of moments\.{field} .* is 0, .* saw nothing here\. Leave .* dense"
    ):
        weighted(normal(6, 5), moments, method="two-sided")


@pytest.mark.parametrize(("E", "D"), [(6, 9), (9, 6)])
@pytest.mark.parametrize("field", ["inputs", "gradients"])
def test_moments_that_are_not_symmetric_are_refused(E, D, field):
    moments = moments_of(E, D)
    getattr(moments, field)[0, 3] += 0.1 * getattr(moments, field).abs().max()
    with pytest.raises(InputError, match=rf"moments\.{field} is not symmetric: .* is this a cross moment"):
        weighted(normal(E, D), moments, method="two-sided")


@pytest.mark.parametrize(("E", "D"), [(6, 9), (9, 6)])
@pytest.mark.parametrize("field", ["inputs", "gradients"])
def test_moments_with_a_negative_direction_are_refused(E, D, field):
    moments = moments_of(E, D)
    moment = getattr(moments, field)
    moment -= 0.5 * torch.linalg.eigvalsh(moment)[-1] * torch.eye(len(moment), dtype=torch.float64)
    moment.diagonal().add_(1e-3 - moment.diagonal().mean())
    with pytest.raises(InputError, match=rf"moments\.{field} has a negative direction: .*bfloat16 \(an autocast"):
        weighted(normal(E, D), moments, method="two-sided")


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shrinkage_outside_its_range_is_refused(share):
    with pytest.raises(InputError, match=rf"the shrinkage of moments\.inputs is {share}: give a share within 0\.\.1"):
        weighted(normal(6, 5), moments_of(6, 5), method="one-sided", shrink_inputs=share)


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match=r"method='both' is not known\. Use one of: one-sided, two-sided"):
        weighted(normal(6, 5), moments_of(6, 5), method="both")


def test_a_weight_with_heads_or_of_whole_numbers_is_refused():
    with pytest.raises(ShapeError, match=r"weight \(2, 6, 5\) must be \(E, D\), without heads"):
        weighted(normal(2, 6, 5), moments_of(6, 5), method="one-sided")
    with pytest.raises(DtypeError, match=r"weight is torch\.int64"):
        weighted(torch.ones(6, 5, dtype=torch.int64), moments_of(6, 5), method="one-sided")


def test_a_product_beyond_float64_is_refused():
    with pytest.raises(NonFiniteError, match=r"the weight's own moment overflows float64: divide the weight"):
        weighted(torch.full((6, 5), 1e200, dtype=torch.float64), moments_of(6, 5), method="one-sided")


@pytest.mark.parametrize("rank", [0, 6, -1])
def test_ranks_outside_the_sizes_are_refused(rank):
    result = weighted(normal(6, 5), moments_of(6, 5), method="two-sided")
    for call in (result.factors, result.pivot):
        with pytest.raises(RankError, match=rf"rank={rank} is outside 1\.\.5 = min\(D=5, E=6\)"):
            call(rank)


@pytest.mark.parametrize("rank", [-1, 6])
def test_the_damage_of_a_rank_outside_the_sizes_is_refused(rank):
    with pytest.raises(RankError, match=rf"rank={rank} is outside 0\.\.5, the ranks of this weight"):
        weighted(normal(6, 5), moments_of(6, 5), method="two-sided").damage(rank)
