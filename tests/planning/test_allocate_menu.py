"""The menu: ranks that save numbers, aligned, spread over what is kept."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrows.errors import InputError
from narrows.planning import menu

SIZES = st.integers(1, 40_000)


def numbers(D, E, form, rank):
    return rank * (D + E) if form == "low-rank" else rank * (D + E - rank)


@given(D=SIZES, E=SIZES, form=st.sampled_from(["low-rank", "pivot"]))
def test_every_rank_saves_numbers_and_is_aligned(D, E, form):
    ranks = menu(D, E, form)
    step = 16 if min(D, E) <= 1024 else 32
    assert all(rank % step == 0 and numbers(D, E, form, rank) < D * E for rank in ranks)
    assert list(ranks) == sorted(set(ranks))
    assert len(ranks) <= 19


@given(D=st.integers(1024, 40_000), E=st.integers(1024, 40_000), form=st.sampled_from(["low-rank", "pivot"]))
def test_the_numbers_of_a_large_layers_ranks_are_spread_evenly(D, E, form):
    kept = [0.0, *(numbers(D, E, form, rank) / (D * E) for rank in menu(D, E, form)), 1.0]
    # Steps of a twentieth, each moved down by rounding to a multiple of 32: at most 32 (D + E) / (D E).
    rounding = 32 * (D + E) / (D * E)
    assert max(high - low for low, high in pairwise(kept)) <= 0.05 + rounding + 1e-9


def test_break_even_itself_is_not_offered():
    assert 32 not in menu(64, 64, "low-rank")
    assert menu(64, 64, "low-rank") == (16,)
    assert menu(64, 64, "pivot") == (16, 32, 48)


@pytest.mark.parametrize("size", [(16, 16), (12, 400), (1, 1)])
def test_a_layer_that_is_too_small_gets_no_ranks(size):
    assert menu(*size, "low-rank") == menu(*size, "pivot") == ()


def test_usual_layers_get_20_to_40_options():
    for size in ((576, 576), (576, 1536), (4096, 4096), (4096, 14336), (8192, 28672)):
        assert 20 <= len(menu(*size, "low-rank")) + len(menu(*size, "pivot")) <= 40


def test_another_multiple_can_be_asked_for():
    assert all(rank % 64 == 0 for rank in menu(4096, 4096, "pivot", multiple=64))


def test_dense_has_no_ranks():
    assert menu(4096, 4096, "dense") == ()


@pytest.mark.parametrize("bad", [{"in_features": 0}, {"out_features": -1}, {"multiple": 0}])
def test_sizes_below_one_are_refused(bad):
    with pytest.raises(InputError, match="must be at least 1"):
        menu(**({"in_features": 64, "out_features": 64, "form": "pivot"} | bad))
