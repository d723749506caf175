"""`narrows check`: tables, files and exit codes."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from models.check_models import folders
from narrows._values import ModelBudget
from narrows._values._check import Check
from narrows.cli import command
from narrows.models import _speed


@pytest.fixture(autouse=True, scope="module")
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_speed, "MOST_ROUNDS", 8)
        patch.setattr(_speed, "SAMPLE_NS", 1e5)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return folders(tmp_path_factory.mktemp("check"))


def check(*arguments: object):
    return CliRunner().invoke(command, ["check", *map(str, arguments), "--windows", "8"])


def test_a_budget_that_is_met_exits_0_and_is_shown_first(made, tmp_path):
    out, dense, _ = made
    file = tmp_path / "check.json"

    result = check(out, "--against", dense, "-o", file)

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Verdict on {out}: met\n")
    for title in ("Quality of", "Speed on", "What is stored", "A sample"):
        assert title in result.stdout
    for side in ("dense", "narrows", "int8 weights", "naive factors"):
        assert side in result.stdout
    found = Check.from_json(file.read_bytes())
    assert (found.folder, found.is_met) == (str(out), True)
    assert f"wrote {file}" in result.stderr


def test_a_broken_budget_exits_1_and_says_by_how_much(tmp_path):
    out, dense, _ = folders(tmp_path, ModelBudget(keep=0.5, perplexity=0.5))

    result = check(out, "--against", dense)

    assert result.exit_code == 1, result.output
    assert f"Verdict on {out}: broken" in result.stdout
    assert "15104 of 18432 numbers are kept, 81.94%; 50 % is allowed" in result.stdout


def test_every_format_holds_the_times(made):
    out, dense, _ = made

    tables = json.loads(check(out, "--against", dense, "--json").stdout)
    csv = check(out, "--against", dense, "--csv", "--workload", "decode:16x1").stdout
    md = check(out, "--against", dense, "--md").stdout

    assert {"verdict", "quality", "speed", "storage", "sample"} <= tables.keys()
    assert [row["side"] for row in tables["speed"]["rows"]] == ["dense", "narrows", "int8 weights", "naive factors"]
    assert [line.split(",")[0] for line in csv.splitlines()] == ["workload"] + ["decode:16x1"] * 4
    assert "| dense |" in md


def test_what_is_missing_is_usage(made, tmp_path):
    out, dense, _ = made
    moved = tmp_path / "moved"
    shutil.copytree(dense, moved)
    for arguments, text in (
        ((out,), "Missing option '--against'"),
        ((dense, "--against", dense), "has no narrows.json"),
        ((out, "--against", tmp_path / "none"), "none is not a folder on this machine"),
        ((out, "--against", moved, "--texts", tmp_path / "none.txt"), "none.txt cannot be read"),
        ((out, "--against", dense, "--workload", "prefill:lots"), "workload 'prefill:lots' is not understood"),
        ((out, "--against", dense, "--device", "tpu"), "tpu"),
        ((out, "--against", dense, "-o", tmp_path / "none" / "check.json"), "the folder"),
    ):
        result = check(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert text in result.stderr
