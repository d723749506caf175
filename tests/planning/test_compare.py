"""Two reports: what changed beyond doubt, and what may not be compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from narrows.errors import ConditionsError, InputError
from narrows.planning import compare
from reporting.reports import MACHINE, make_report, with_speedup

SMALL = {"tokens": (64,), "ranks": (64, 128), "variants": ("two",), "weights": ("gaussian",)}
BEFORE = make_report(**SMALL, time_ns=with_speedup(lambda *_: 2.0))


def by_rank(differences):
    return {row.rank: row.ratio for row in differences.rows if row.rank is not None}


def test_a_report_equals_itself():
    same = compare(BEFORE, BEFORE)

    assert {row.ratio.value for row in same.rows} == {1.0}
    assert not same.slower
    assert not same.faster


def test_a_row_that_became_slower_is_named_and_the_others_are_not():
    after = make_report(**SMALL, time_ns=with_speedup(lambda _, rank: 2.0 if rank == 128 else 1.6))

    found = compare(BEFORE, after)

    assert [(row.tokens, row.rank, row.variant) for row in found.slower] == [(64, 64, "two")]
    assert by_rank(found)[64].value == pytest.approx(0.8, rel=0.02)
    assert by_rank(found)[128].verdict == "tie"


def test_a_row_that_became_faster_is_no_regression():
    after = make_report(**SMALL, time_ns=with_speedup(lambda *_: 3.0))

    found = compare(BEFORE, after)

    assert {row.rank for row in found.faster} == {64, 128}
    assert not found.slower


def test_a_difference_within_two_percent_is_not_distinguishable():
    after = make_report(**SMALL, time_ns=with_speedup(lambda *_: 1.98))

    assert by_rank(compare(BEFORE, after))[64].verdict == "tie"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"seed": 7}, "seed: 0 in A, 7 in B"),
        ({"dtype": "bfloat16"}, "dtype: float32 in A, bfloat16 in B"),
        ({"version": "0.2.0"}, "narrows: 0.1.0 in A, 0.2.0 in B"),
        ({"features": 2048}, "in_features: 4096 in A, 2048 in B"),
        ({"machine": replace(MACHINE, fingerprint="e" * 16, threads=8)}, "threads: 2 in A, 8 in B"),
        ({"machine": replace(MACHINE, software={"torch": "2.14.0"})}, "software torch: 2.13.0 in A, 2.14.0 in B"),
        ({"weights": ("gaussian", "power")}, "weight power sha256: absent in A"),
    ],
)
def test_different_conditions_are_refused_by_name_unless_forced(changes, text):
    after = make_report(**(SMALL | changes))

    with pytest.raises(ConditionsError, match="different conditions") as refused:
        compare(BEFORE, after)

    assert text in str(refused.value)
    assert any(text in difference for difference in refused.value.differences)
    assert compare(BEFORE, after, force=True).conditions == refused.value.differences


def test_the_conditions_stand_in_the_text():
    text = r"under different conditions: seed: 0 in A, 7 in B\. Measure under the same ones, or force the comparison"
    with pytest.raises(ConditionsError, match=text):
        compare(BEFORE, make_report(**(SMALL | {"seed": 7})))


def test_rows_of_only_one_report_are_counted_not_compared():
    found = compare(BEFORE, make_report(**(SMALL | {"ranks": (64,)})))

    assert [row.rank for row in found.only_a] == [128]
    assert found.only_b == ()


def test_nothing_in_common_is_refused():
    with pytest.raises(InputError, match=r"A has 4, B has 4 measured rows"):
        compare(BEFORE, make_report(**(SMALL | {"tokens": (128,)})))
