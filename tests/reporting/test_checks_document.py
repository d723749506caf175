"""Checks of one model side by side: points, page and what may not be compared."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from narrows._values._check import Estimate
from narrows.errors import InputError
from narrows.reporting import check_points, checks_document, checks_tables
from reporting.checks import DECODE, PREFILL, make_check

CHECKS = (make_check(0.9, 1.05, 1.1), make_check(0.8, 1.2, 1.3))


def test_every_folder_is_a_point_beside_dense_and_int8():
    points = check_points(CHECKS, PREFILL)

    assert [one.label for one in points] == ["dense", "int8", "keep 0.9", "keep 0.8"]
    assert [one.num_bytes for one in points] == [4000, 1000, 3600, 3200]
    assert [one.speedup for one in points] == pytest.approx([1.0, 0.8, 1.1, 1.3])
    assert (points[2].perplexity_low, points[2].perplexity, points[2].perplexity_high) == pytest.approx(
        (20.8, 21.0, 21.2)
    )
    assert [one.is_choice for one in points] == [False, False, True, True]


def test_a_side_that_was_not_run_is_no_point():
    without = replace(
        CHECKS[0], sides=tuple(replace(s, missing="no torchao") if s.name == "int8" else s for s in CHECKS[0].sides)
    )

    assert [one.label for one in check_points([without], PREFILL)] == ["dense", "keep 0.9"]


def test_each_workload_has_a_table_with_measured_figures_only():
    first, second = checks_tables(CHECKS)

    names = [column.name for column in first.columns]
    assert names == ["label", "kept", "bytes", "perplexity", "perplexity_ratio", "speedup", "note"]
    assert [row[4].text for row in first.rows] == ["1.0000x", "1.0050x", "1.0500x", "1.2000x"]
    assert len(second.rows) == 4


def test_the_page_says_who_beats_whom_and_draws_both_charts():
    text = checks_document(CHECKS)

    assert "By quality and speed, nothing measured beats dense, keep 0.9 and keep 0.8." in text
    assert "int8 beats keep 0.8: 1000 B against 3.12 KiB" in text
    assert f"Quality against speed at {PREFILL}" in text
    assert f"Quality against speed at {DECODE}" in text
    assert text.count("Quality against bytes") >= 1
    assert "the frontier, as predicted" not in text


def test_an_encoder_has_tables_but_no_chart():
    sides = tuple(replace(side, language=None) for side in CHECKS[0].sides)

    text = checks_document([replace(CHECKS[0], kind="encoder", sides=sides)])

    assert "Charts are of perplexity; this model has none" in text
    assert "Cosine to dense" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "other"}, "keep-0.8: model is 'other', of keep-0.9 'model': checks side by side need the same"),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16', of keep-0.9 'float32'"),
        ({"device_name": "b"}, "device_name is 'b', of keep-0.9 'a device'"),
        ({"text": None}, "keep-0.8 was checked on other text than keep-0.9"),
        ({"folder": "keep-0.9"}, "keep-0.9 is given more than once"),
    ],
)
def test_checks_of_different_things_are_not_put_side_by_side(changes, said):
    with pytest.raises(InputError, match=re.escape(said)):
        checks_document([CHECKS[0], replace(CHECKS[1], **changes)])


def test_hostile_names_stay_text():
    hostile = make_check(folder="<script>alert(1)</script>")

    assert "<script>alert(1)" not in checks_document([hostile])


def test_without_intervals_there_are_none_on_the_point():
    sides = list(CHECKS[0].sides)
    language = replace(sides[1].language, ratio=Estimate(1.05, None, None))
    sides[1] = replace(sides[1], language=language)

    point = check_points([replace(CHECKS[0], sides=tuple(sides))], None)[2]

    assert (point.perplexity_low, point.perplexity_high, point.speedup) == (None, None, None)
