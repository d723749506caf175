"""What is measured again and what is not: keys follow content and conditions, never names or paths."""

from __future__ import annotations

from dataclasses import replace

import pytest

import narrows
from bench.experiments import GAUSSIAN, small
from narrows.bench import _keys
from narrows.bench._keys import Keys
from narrows.bench._point import Point

POINT = Point(16, 4, "three", "eager", "hot")
KEYS = Keys(small(), "machine", ("weight",), "input")


@pytest.mark.parametrize(
    "changed",
    [
        replace(KEYS, fingerprint="another machine"),
        replace(KEYS, weights=("another weight",)),
        replace(KEYS, inputs="another input"),
        replace(KEYS, experiment=small(seed=1)),
        replace(KEYS, experiment=small(dtype="bfloat16")),
        replace(KEYS, experiment=small(kind="linear")),
        replace(KEYS, experiment=small(other_tokens=8)),
        replace(KEYS, experiment=small(in_features=128, out_features=128)),
    ],
)
def test_another_content_or_condition_is_another_measurement(changed):
    assert changed.point(POINT) != KEYS.point(POINT)
    assert changed.weight(0) != KEYS.weight(0)


@pytest.mark.parametrize("field", ["tokens", "rank", "variant", "mode", "cache"])
def test_every_field_of_a_point_counts(field):
    values = {"tokens": 32, "rank": 16, "variant": "two", "mode": "graph", "cache": "cold"}
    assert KEYS.point(replace(POINT, **{field: values[field]})) != KEYS.point(POINT)


def test_another_version_or_timer_is_another_measurement(monkeypatch):
    before = KEYS.point(POINT)
    monkeypatch.setattr(_keys, "MEASURE", _keys.MEASURE + 1)
    timer = KEYS.point(POINT)
    monkeypatch.setattr(narrows, "__version__", "99")
    assert len({before, timer, KEYS.point(POINT)}) == 3


def test_names_paths_and_other_rows_do_not_count():
    renamed = small(weights=(replace(GAUSSIAN, name="q_proj", path="elsewhere"),), tokens=(16,), ranks=(4, 8))
    assert replace(KEYS, experiment=renamed).point(POINT) == KEYS.point(POINT)


def test_a_weights_errors_belong_to_the_lengths_and_ranks_they_were_measured_at():
    assert replace(KEYS, experiment=small(ranks=(4, 8))).weight(0) != KEYS.weight(0)
