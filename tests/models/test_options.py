"""What each layer could become, with its figures."""

from __future__ import annotations

import pytest

from models.jobs import job
from models.taught import taught
from narrows import Workload
from narrows.bench import LayerTimes
from narrows.bench._layers_record import LayerTime
from narrows.models._options import layer_options, numbers
from narrows.models._stacks import Stack
from narrows.models._times import Times

UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
SHORT, LONG = Workload("prefill", 8, weight=3), Workload("prefill", 64)


@pytest.fixture(scope="module")
def one():
    return job(taught())


def timed(D, E, rows, *, slower=()):
    """Return made-up times: every rank takes its share of dense, but for slower ones."""
    dense = 1000.0 * rows
    found = [LayerTime(D, E, "dense", None, rows, dense)]
    for rank in (16, 32, 48):
        speedup = 0.9 if rank in slower else 64 / rank
        found.append(LayerTime(D, E, "pivot", rank, rows, dense / speedup, speedup, 0.99 * speedup, 1.01 * speedup))
    return found


@pytest.fixture(scope="module")
def times():
    shapes = ((64, 128), (128, 64), (64, 64), (64, 32))
    measured = [time for D, E in shapes for rows in (8, 64) for time in timed(D, E, rows, slower=(48,))]
    layers = LayerTimes(tuple(measured), "float32", "cpu", "f", "a CPU", "0")
    return Times(layers, (SHORT, LONG), 0.0)


def test_every_layer_has_dense_first_and_then_ranks_that_are_smaller_with_falling_damage(one):
    for layer in one.options:
        dense, *others = layer.options
        assert (dense.form, dense.rank, dense.damage) == ("dense", None, 0.0)
        assert dense.numbers == layer.in_features * layer.out_features
        assert dense.bytes == 4 * dense.numbers
        assert others
        assert all(0 < other.numbers < dense.numbers for other in others)
        for form in ("low-rank", "pivot"):
            ranks = [other.rank for other in others if other.kind == form]
            damages = [other.damage for other in others if other.kind == form]
            assert ranks == sorted(ranks)
            assert damages == sorted(damages, reverse=True)
            assert damages[-1] > 0


def test_the_damage_of_a_rank_is_that_of_its_decomposition_whatever_the_form(one):
    made = one._decomposed([target for target in one.targets if target.name == UP])
    layer = next(layer for layer in one.options if layer.layer == UP)

    for option in layer.options[1:]:
        if option.stack:
            continue
        assert option.damage == pytest.approx(made.damage(option.rank), rel=1e-12)


@pytest.mark.parametrize(("form", "rank", "wanted"), [("dense", None, 96), ("low-rank", 3, 60), ("pivot", 3, 51)])
def test_numbers_are_those_that_the_form_stores(form, rank, wanted):
    assert numbers(form, 8, 12, rank) == wanted


def test_without_gradients_damage_is_the_share_of_the_output_that_is_lost():
    one = job(taught(), method="one-sided")

    for layer in one.options:
        assert all(0 <= option.damage <= 1 for option in layer.options)
    whole = one._damages(Stack(UP, (one.targets[0],)))
    assert whole[0] == pytest.approx(1.0)
    assert whole[-1] == 0.0


def test_only_ranks_that_were_measured_are_offered_with_their_times(one, times):
    damages = {target.name: [1.0 / (1 + rank) for rank in range(129)] for target in one.targets}

    found = layer_options(one.targets, damages, forms=("low-rank", "pivot"), times=times)

    up = next(layer for layer in found if layer.layer == UP)
    assert [(option.form, option.rank) for option in up.options] == [
        ("dense", None),
        ("pivot", 16),
        ("pivot", 32),
        ("pivot", 48),
    ]
    # Three requests of 8 tokens for each of 64: the mean over requests.
    assert up.options[0].time_ns == pytest.approx((3 * 8 + 64) / 4 * 1000.0)
    assert up.options[1].time_ns == pytest.approx(up.options[0].time_ns / 4)
    assert [option.is_faster for option in up.options] == [False, True, True, False]


def test_a_rank_that_was_measured_at_one_workload_only_is_not_offered(times):
    D, E = 64, 128
    rest = tuple(one for one in times.layers.times if (one.rows, one.rank) != (8, 32))
    layers = LayerTimes(rest, "float32", "cpu", "f", "a CPU", "0")

    assert Times(layers, (SHORT, LONG), 0.0).ranks(D, E, "pivot") == (16, 48)
    assert Times(layers, (LONG,), 0.0).ranks(D, E, "pivot") == (16, 32, 48)
    assert Times(layers, (LONG,), 0.0).ranks(D, E, "low-rank") == ()
