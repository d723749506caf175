"""From rows to speedups: which dense side, which rounds."""

from __future__ import annotations

import pytest

from narrows._stats import against, dense_row, fastest
from narrows._values import Row


def row(rank, variant, samples, rounds=None, tokens=64, **kwargs):
    times = tuple(float(s) for s in samples)
    return Row(
        tokens,
        rank,
        variant,
        "eager",
        "hot",
        "ok",
        samples_ns=times,
        rounds=tuple(rounds or range(len(times))),
        **{"flops": 1, **kwargs},
    )


def test_dense_is_the_faster_association():
    left, right = row(None, "left", [100, 110, 105]), row(None, "right", [90, 95, 91])
    assert dense_row([left, right, row(16, "two", [1, 1, 1])]) is right


def test_without_a_measured_dense_row_there_is_no_dense_side():
    assert dense_row([row(None, "left", []), row(16, "two", [1, 1])]) is None


def test_only_rounds_that_hold_both_sides_count():
    dense = row(None, "left", [100, 200, 400], rounds=[0, 1, 3])
    thin = row(16, "two", [10, 10, 10], rounds=[1, 2, 3])
    ratio = against(thin, dense)
    assert ratio is not None
    assert ratio.num_rounds == 2
    assert ratio.value == pytest.approx(30.0)


def test_rows_that_share_no_round_have_no_ratio():
    assert against(row(16, "two", [1.0], rounds=[0]), row(None, "left", [1.0], rounds=[1])) is None


def test_nothing_is_fastest_of_nothing():
    assert fastest([]) is None
