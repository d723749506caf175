"""`narrows show`: every form of its output, and the files it refuses."""

from __future__ import annotations

import csv
import io
import json

import pytest
from click.testing import CliRunner

from narrows.cli import command
from reporting.checks import make_check
from reporting.reports import make_report, with_speedup

REPORT = make_report(
    tokens=(64, 512),
    ranks=(64, 256),
    weights=("gaussian", "product"),
    rounds=8,
    time_ns=with_speedup(lambda t, r: 3.0 if (t, r) == (512, 64) else 1.5),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("show") / "report.json"
    path.write_text(REPORT.to_json())
    return str(path)


def show(*arguments: str):
    return CliRunner().invoke(command, ["show", *arguments])


def test_without_flags_it_shows_tables_findings_and_the_count_of_verdicts(file):
    result = show(file)

    assert result.exit_code == 0, result.output
    for title in (
        "Best middle dimension for each",
        "within an error of 5 %",
        "Speedup by rank",
        "Key findings",
        "Doubts",
    ):
        assert title in result.output
    assert "Of the origin's" in result.output


def test_best_shows_only_the_best(file):
    output = show(file, "--best").output

    assert "Best middle dimension" in output
    assert "Key findings" not in output
    assert "within an error" not in output
    assert "within an error of 50 %" in show(file, "--best", "--error", "0.5").output


def test_statements_are_numbered_with_verdicts(file):
    data = json.loads(show(file, "--statements", "--json").output)

    rows = data["statements"]["rows"]
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    assert {row["verdict"] for row in rows} <= {"holds", "refuted", "cannot tell"}


def test_json_holds_unrounded_numbers(file):
    data = json.loads(show(file, "--json").output)

    assert data["best"]["rows"][1]["rank"] == 64
    assert data["best"]["rows"][1]["speedup"] == pytest.approx(3.0, rel=0.02)
    assert len(data["rows"]["rows"]) == len(REPORT.rows)


def test_csv_is_one_table_of_every_row(file):
    rows = list(csv.DictReader(io.StringIO(show(file, "--csv").output)))

    assert len(rows) == len(REPORT.rows)
    assert {"error_gaussian", "error_product", "speedup_low"} <= set(rows[0])


def test_markdown_is_the_whole_document(file):
    output = show(file, "--md").output

    assert output.startswith("# Speedup analysis")
    assert "## Recommendations" in output
    assert "## The origin's statements" in output


def test_one_weight_alone(file):
    output = show(file, "--best", "--weight", "product").output

    assert "Error, product" in output
    assert "gaussian" not in output
    wrong = show(file, "--weight", "real")
    assert (wrong.exit_code, "weight='real' is not in this report" in wrong.stderr) == (2, True)


def test_html_is_written_to_the_file_named(file, tmp_path):
    out = tmp_path / "page.html"

    result = show(file, "--html", str(out))

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"wrote {out}\n"
    assert out.read_text().startswith("<!doctype html>")


def test_a_missing_file_is_named(tmp_path):
    result = show(str(tmp_path / "no.json"))

    assert result.exit_code == 2
    assert "no.json cannot be read: No such file or directory. Give the file that `narrows measure" in result.stderr


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not a complete JSON document"),
        ("{}", "is JSON but not a narrows report"),
        ('{"schema": 99}', "has schema 99"),
        ('{"schema": 1}', "is not a valid narrows report"),
    ],
)
def test_a_foreign_or_cut_file_is_refused(tmp_path, text, why):
    path = tmp_path / "bad.json"
    path.write_text(text)

    result = show(str(path))

    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr


def test_a_report_cut_short_is_refused(file, tmp_path):
    path = tmp_path / "cut.json"
    path.write_text(REPORT.to_json()[:-100])

    assert "cut short" in show(str(path)).stderr


def test_an_error_budget_below_zero_is_refused(file):
    result = show(file, "--error", "-1")

    assert (result.exit_code, "error=-1.0 must be a finite number >= 0" in result.stderr) == (2, True)


def test_several_checks_are_shown_side_by_side_with_their_page(tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, kept in zip(paths, (0.9, 0.8), strict=True):
        path.write_text(make_check(kept).to_json())
    page = tmp_path / "page.html"

    result = CliRunner().invoke(command, ["show", *map(str, paths), "--html", str(page)])
    shown = CliRunner().invoke(command, ["show", *map(str, paths)])

    assert result.exit_code == 0, result.output
    assert "keep-0.8" in page.read_text()
    assert shown.exit_code == 0, shown.output
    assert "keep 0.8" in shown.stdout


def test_a_report_among_checks_is_refused_by_name(tmp_path):
    check, other = tmp_path / "a.json", tmp_path / "b.json"
    check.write_text(make_check().to_json())
    other.write_text("{}")

    result = CliRunner().invoke(command, ["show", str(check), str(other)])

    assert result.exit_code == 2
    assert f"{other} is no check of `narrows check`" in result.stderr


def test_an_option_of_reports_is_refused_for_a_check(tmp_path):
    check = tmp_path / "a.json"
    check.write_text(make_check().to_json())

    result = CliRunner().invoke(command, ["show", str(check), "--best"])

    assert result.exit_code == 2
    assert "--best: only a report of `narrows measure` has that" in result.stderr
