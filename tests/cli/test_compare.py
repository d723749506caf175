"""`narrows compare`: ratios, and the exit code of a regression."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from narrows.cli import command
from reporting.reports import make_report, with_speedup

SMALL = {"tokens": (64,), "ranks": (64,), "variants": ("two",), "weights": ("gaussian",)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    reports = {
        "before": make_report(**SMALL, time_ns=with_speedup(lambda *_: 2.0)),
        "slower": make_report(**SMALL, time_ns=with_speedup(lambda *_: 1.5)),
        "faster": make_report(**SMALL, time_ns=with_speedup(lambda *_: 3.0)),
        "other": make_report(**SMALL, seed=3),
    }
    for name, report in reports.items():
        (folder / name).write_text(report.to_json())
    return {name: str(folder / name) for name in reports}


def compare(*arguments: str):
    return CliRunner().invoke(command, ["compare", *arguments])


def test_equal_reports_are_not_distinguishable(files):
    result = compare(files["before"], files["before"])

    assert result.exit_code == 0
    assert result.output.count("not distinguishable") == 3


def test_a_regression_exits_1_after_its_table(files):
    result = compare(files["before"], files["slower"], "--json")

    assert result.exit_code == 1
    rows = json.loads(result.stdout)["compare"]["rows"]
    assert [row["verdict"] for row in rows if row["rank"] == 64] == ["slower"]


def test_a_gain_exits_0(files):
    assert compare(files["before"], files["faster"]).exit_code == 0


def test_other_conditions_are_refused_and_named_unless_forced(files):
    refused = compare(files["before"], files["other"])

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "seed: 0 in A, 3 in B" in refused.stderr
    assert "Compared by force: seed: 0 in A, 3 in B" in compare(files["before"], files["other"], "--force").stdout
