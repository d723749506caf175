"""What runs where nothing was measured exactly: neighbours, and when they must agree."""

from __future__ import annotations

import pytest

from kernels.tuned.records import CONFIG, candidate, entry, signature
from narrows.kernels.tuned import Config, Tiles, cublas, neighbours

BIG = Config(Tiles(128, 128, 128), Tiles(128, 128, 64))


def winner(where, *entries):
    """Return what runs a signature."""
    return neighbours(where, entries).winner(where)


def test_the_exact_signature_decides_alone():
    assert winner(signature(), entry(), entry(tokens=32, own=0.5), entry(tokens=128, own=0.5)) == "triton"
    assert winner(signature(), entry(own=0.5), entry(tokens=32), entry(tokens=128)) == "two"


def test_without_anything_near_it_is_cublas():
    assert winner(signature()) == "two"
    assert winner(signature(other_tokens=64)) == "three"
    assert winner(signature(kind="linear")) == "two"
    assert cublas(signature(kind="linear", other_tokens=0)) == "two"


@pytest.mark.parametrize(("low", "high", "found"), [(2.0, 2.0, "triton"), (2.0, 1.0, "two"), (0.9, 2.0, "two")])
def test_between_two_lengths_an_own_kernel_must_win_at_both(low, high, found):
    assert winner(signature(tokens=96), entry(tokens=64, own=low), entry(tokens=128, own=high)) == found


def test_between_two_lengths_the_best_of_those_that_win_at_both_is_taken():
    low = entry(tokens=64, own=2.0, more={"gluon": candidate(3.0)})
    high = entry(tokens=128, own=2.0, more={"gluon": candidate(1.5)})
    assert winner(signature(tokens=96), low, high) == "triton"
    low_only = entry(tokens=64, own=1.1, more={"gluon": candidate(3.0)})
    assert winner(signature(tokens=96), low_only, entry(tokens=128, own=1.1)) == "triton"


def test_a_far_length_on_the_other_side_must_agree_too():
    assert winner(signature(tokens=100), entry(tokens=64), entry(tokens=4096, own=0.5)) == "two"
    assert winner(signature(tokens=100), entry(tokens=64), entry(tokens=4096)) == "triton"


def test_the_nearest_length_gives_the_sizes():
    low, high = entry(tokens=64), entry(tokens=128, own=None, more={"triton": candidate(config=BIG)})
    assert neighbours(signature(tokens=70), (low, high)).config("triton") == CONFIG
    assert neighbours(signature(tokens=120), (low, high)).config("triton") == BIG
    assert neighbours(signature(tokens=120), (low, high)).config("gluon") is None


@pytest.mark.parametrize(
    ("change", "is_near"),
    [
        ({"tokens": 128}, True),
        ({"tokens": 129}, False),
        ({"tokens": 32}, True),
        ({"tokens": 31}, False),
        ({"rank": 128}, True),
        ({"rank": 129}, False),
        ({"in_features": 1024, "out_features": 1024}, True),
        ({"in_features": 1023, "out_features": 1023}, False),
        ({"dtype": "float16"}, False),
        ({"mode": "eager"}, False),
        ({"kind": "linear"}, False),
        ({"heads": 2}, False),
        ({"other_tokens": 64}, False),
    ],
)
def test_near_is_a_factor_of_two_in_tokens_and_rank_and_of_four_in_features(change, is_near):
    assert (neighbours(signature(**change), (entry(),)).nearest is not None) == is_near


def test_a_y_of_its_own_is_near_within_a_factor_of_two_of_its_tokens():
    known = entry(other_tokens=100)
    assert neighbours(signature(other_tokens=200), (known,)).nearest is known
    assert neighbours(signature(other_tokens=201), (known,)).nearest is None


def test_the_nearest_shape_decides_even_where_a_farther_one_has_the_exact_length():
    near = entry(tokens=100, in_features=4000, out_features=4000, own=0.5)
    far = entry(tokens=64, in_features=2048, out_features=2048)
    assert winner(signature(), far, near) == "two"


def test_an_own_kernel_that_was_wrong_gives_no_sizes():
    wrong = candidate(median_ns=None, checked=False, reason="wrong")
    assert neighbours(signature(), (entry(own=None, more={"triton": wrong}),)).config("triton") is None
