"""`narrows choose`: the plan on the screen and in a file, and the answer no."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from narrows._values import Plan
from narrows.cli import command
from reporting.reports import make_report, with_speedup

SPEEDUP = {64: 3.0, 256: 2.0}
REPORT = make_report(
    tokens=(64, 512),
    ranks=(64, 256),
    weights=("gaussian", "product"),
    variants=("two",),
    time_ns=with_speedup(lambda _, rank: SPEEDUP[rank]),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("choose") / "report.json"
    path.write_text(REPORT.to_json())
    return str(path)


def choose(*arguments: str):
    return CliRunner().invoke(command, ["choose", *arguments])


def test_the_plan_and_its_reasons_are_printed(file):
    result = choose(file, "--tokens", "512", "--error", "0.01", "--weight", "product")

    assert result.exit_code == 0, result.output
    assert "rank 256" in result.output
    assert "within the budget of 0.01" in result.output
    assert "Budget: error at most 1 %" in result.output


def test_staying_dense_is_an_answer_that_exits_0(file):
    result = choose(file, "--tokens", "512", "--error", "0.01")

    assert result.exit_code == 0
    assert "dense" in result.output
    assert "no measured rank meets the error budget of 0.01" in result.output


def test_one_plan_covers_every_length_and_is_written_whole(file, tmp_path):
    out = tmp_path / "plan.json"

    result = choose(file, "-o", str(out), "--json")

    plan = Plan.from_json(out.read_bytes())
    assert result.exit_code == 0
    assert [(c.tokens_from, c.tokens_to) for c in plan.choices] == [(64, 64), (65, 511), (512, 512)]
    assert [row["tokens_from"] for row in json.loads(result.stdout)["plan"]["rows"]] == [64, 65, 512]
    assert result.stderr == f"wrote {out}\n"


def test_an_infeasible_budget_exits_1_names_the_nearest_point_and_writes_nothing(file, tmp_path):
    out = tmp_path / "plan.json"

    result = choose(
        file, "--tokens", "512", "--error", "0.01", "--min-speedup", "2.5", "--weight", "product", "-o", str(out)
    )

    assert (result.exit_code, result.stdout, out.exists()) == (1, "", False)
    assert "Nothing meets min_speedup=2.5, error=0.01 at T=512. Nearest: rank 256 (two), " in result.stderr


def test_sizes_are_read_with_their_unit(file):
    assert choose(file, "--max-bytes", "2MiB").exit_code == 0
    too_small = choose(file, "--max-bytes", "2MB")
    assert (too_small.exit_code, "max_bytes=2000000" in too_small.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--tokens", "5000"), "tokens=5000 is outside 64..512"),
        (("--max-bytes", "much"), "--max-bytes='much' is not a size"),
        (("--error", "nan"), "error=nan must be a finite number"),
        (("--min-speedup", "0"), "min_speedup=0.0 must be a finite number > 0"),
        (("--mode", "graph"), "mode='graph' is not in this report"),
    ],
)
def test_bad_input_is_usage(file, arguments, text):
    result = choose(file, *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert text in result.stderr
