"""Reports and plans come back from JSON as they were, and foreign or broken files are told apart."""

from __future__ import annotations

import json

import pytest

from narrows import Budget, Plan, Report, choose
from narrows.errors import FileError
from reporting.reports import make_report


@pytest.fixture(scope="module")
def report():
    return make_report(time_ns=lambda tokens, rank, _: tokens * (rank or 64) * 1000.0)


def test_a_report_and_a_plan_come_back_as_they_were(report):
    assert Report.from_json(report.to_json()) == report
    plan = choose(report, Budget(error=0.9))
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.999])
def test_a_file_that_was_cut_short_says_so(report, kept):
    text = report.to_json()
    cut = text[: int(kept * len(text)) if isinstance(kept, float) else kept]
    with pytest.raises(FileError, match=r"r\.json is not a complete JSON document .* cut short"):
        Report.from_json(cut, source="r.json")


def _changed(report, **changes):
    """Return a report's document of the first schema, which has no seal, with changes."""
    fields = json.loads(report.to_json())
    del fields["sha256"]
    return json.dumps({**fields, "schema": 1, **changes})


def test_json_of_something_else_a_newer_schema_and_a_wrong_field_are_told_apart(report):
    with pytest.raises(FileError, match="is JSON but not a narrows report"):
        Report.from_json('{"a": 1}')
    with pytest.raises(FileError, match="has schema 99; this version of narrows reads up to 2"):
        Report.from_json(_changed(report, schema=99))
    with pytest.raises(FileError, match=r"valid string at version \(1 faults in all\)"):
        Report.from_json(_changed(report, version=7))
    with pytest.raises(FileError, match="surprise"):
        Report.from_json(_changed(report, surprise=1))
    with pytest.raises(FileError, match="not a valid narrows plan"):
        Plan.from_json(report.to_json())
