"""`narrows measure`: flags to an experiment, what it prints and writes, how it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from bench.in_process import InProcess
from narrows import Report, bench
from narrows.bench import _sweep
from narrows.cli import command
from narrows.errors import ResourceError
from reporting.reports import make_report

REPORT = make_report(tokens=(64,), ranks=(64,), weights=("gaussian",), rounds=8)


@pytest.fixture
def asked(monkeypatch):
    """Return what `run_experiment` was called with, in place of running it."""
    calls = []

    def run_experiment(experiment, **options):
        calls.append((experiment, options))
        return REPORT

    monkeypatch.setattr(bench, "run_experiment", run_experiment)
    return calls


@pytest.fixture
def answers(monkeypatch):
    """Return a function that sets what `run_experiment` does."""

    def set_answer(report):
        def run_experiment(*_, **__):
            if isinstance(report, BaseException):
                raise report
            return report

        monkeypatch.setattr(bench, "run_experiment", run_experiment)

    return set_answer


@pytest.fixture
def model(tmp_path):
    tensors = {"up": torch.randn(32, 48), "q": torch.randn(32, 48), "k": torch.randn(16, 48), "x": torch.randn(20, 48)}
    save_file(tensors, tmp_path / "m.safetensors")
    return f"{tmp_path}/m.safetensors"


def measure(*arguments):
    return CliRunner().invoke(command, ["measure", *map(str, arguments)])


def test_without_arguments_it_is_the_origins_experiment(asked):
    result = measure()

    assert result.exit_code == 0, result.output
    ((experiment, options),) = asked
    assert experiment == bench.origin_experiment()
    assert options["minutes"] == 8.0
    assert options["fresh"] is False
    assert options["store"] is None


def test_every_flag_reaches_the_experiment(asked, tmp_path):
    flags = "--shape 64x96 --tokens 16..64,100 --rank 4,8..32 --dtype bf16 --mode eager,graph --cache cold,hot"
    rest = ["--device", "cuda:1", "--seed", "7", "--minutes", "0.5", "--store", tmp_path / "s", "--fresh"]
    assert measure(*flags.split(), *rest).exit_code == 0

    experiment, options = asked[0]
    assert (experiment.kind, experiment.in_features, experiment.out_features) == ("linear", 64, 96)
    assert experiment.tokens == (16, 32, 64, 100)
    assert experiment.ranks == (4, 8, 16, 32)
    assert (experiment.dtype, experiment.device, experiment.seed) == ("bfloat16", "cuda:1", 7)
    assert (experiment.modes, experiment.caches) == (("eager", "graph"), ("cold", "hot"))
    assert (options["minutes"], options["store"], options["fresh"]) == (0.5, tmp_path / "s", True)


@pytest.mark.parametrize(
    ("shape", "ranks"), [("1x1", (1,)), ("20x20", (16,)), ("100x48", (16, 32)), ("300x512", (64, 128, 256))]
)
def test_default_ranks_double_up_to_the_largest(asked, shape, ranks):
    assert measure("--shape", shape).exit_code == 0
    assert asked[0][0].ranks == ranks


def test_a_weight_of_a_file_is_linear_and_brings_its_shape_and_real_activations(asked, model):
    assert measure("--weight", f"{model}:up", "--input", f"{model}:x", "--tokens", "16").exit_code == 0
    experiment = asked[0][0]
    assert (experiment.kind, experiment.in_features, experiment.out_features) == ("linear", 48, 32)
    assert (experiment.input_path, experiment.input_tensor) == (model, "x")
    measure("--weight", f"{model}:up", "--layout", "in-out")
    assert (asked[1][0].in_features, asked[1][0].out_features) == (32, 48)


def test_two_operands_are_a_bilinear_product_a_head_with_its_own_largest_rank(asked, model):
    heads = ("--heads", "4", "--kv-heads", "2")
    assert measure("--weight", f"{model}:q", "--weight-right", f"{model}:k", *heads).exit_code == 0
    experiment = asked[0][0]
    assert (experiment.kind, experiment.heads, experiment.kv_heads) == ("bilinear", 4, 2)
    assert (experiment.weights[0].inner, experiment.ranks) == (8, (8,))


def test_it_prints_tables_and_writes_the_report(asked, tmp_path):
    result = measure("-o", tmp_path / "r.json")

    assert result.stdout.startswith("Best middle dimension for each sequence length")
    assert f"wrote {tmp_path}/r.json: narrows show {tmp_path}/r.json" in result.stderr
    assert Report.from_json((tmp_path / "r.json").read_text()) == REPORT
    assert asked


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("no/r.json", "no/r.json: its folder does not exist. Make it first: nothing was measured yet"),
        ("", "--output={0} is a folder. Give a file in it, e.g. {0}/report.json"),
        ("file/r.json", "file/r.json: its folder does not exist"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_measured(asked, tmp_path, target, text):
    (tmp_path / "file").write_text("")
    result = measure("-o", tmp_path / target)

    assert result.exit_code == 2
    assert text.format(tmp_path) in result.stderr
    assert asked == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_report_that_cannot_be_written_after_all_says_that_nothing_is_lost(asked, tmp_path, monkeypatch):
    def full(*_):
        raise ResourceError("r.json was not written: No space left on device.")

    monkeypatch.setattr("narrows._files.write_text_atomic", full)
    result = measure("-o", tmp_path / "r.json")

    assert result.exit_code == 3
    assert "everything measured is kept: run the same command with another -o FILE" in result.stderr
    assert "No space left on device" in result.stderr
    assert asked


def test_rows_without_a_time_are_counted_with_a_reason(answers):
    first, *rest = REPORT.rows
    rest[0] = replace(
        rest[0], samples_ns=(), rounds=(), status="does not fit", reason="needs 9.00 GiB, 1.00 GiB are free"
    )
    answers(replace(REPORT, rows=(first, *rest)))
    result = measure()

    assert result.exit_code == 0
    assert (
        f"1 of {len(REPORT.rows)} rows have no time: 1 does not fit (needs 9.00 GiB, 1.00 GiB are free)."
        in result.stderr
    )


def test_a_report_without_any_time_could_not_be_done_but_is_written(answers, tmp_path):
    rows = [replace(row, samples_ns=(), rounds=(), status="refused", reason="this is a CPU") for row in REPORT.rows]
    answers(replace(REPORT, rows=tuple(rows)))
    result = measure("-o", tmp_path / "r.json")

    assert result.exit_code == 3
    assert f"error: {len(rows)} of {len(rows)} rows have no time: {len(rows)} refused (this is a CPU)." in result.stderr
    assert (tmp_path / "r.json").exists()


def test_a_complete_report_says_nothing_of_missing_times(asked):
    assert "have no time" not in measure().stderr
    assert asked


def test_ctrl_c_says_that_everything_is_kept_and_is_130(answers):
    answers(KeyboardInterrupt())
    result = measure()

    assert result.exit_code == 130
    assert "stopped: everything measured so far is kept; run the same command to continue." in result.stderr


def test_a_run_with_nothing_left_says_so_and_prints_the_same_report(tmp_path, monkeypatch):
    monkeypatch.setattr(_sweep, "Worker", InProcess)
    monkeypatch.setattr(_sweep, "FIRST_ROUND_SECONDS", 20.0)
    flags = ["--shape", "32x32", "--tokens", "8", "--rank", "4", "--minutes", "0.001", "--store", tmp_path / "s.sqlite"]
    first = measure(*flags, "-o", tmp_path / "1.json")
    second = measure(*flags, "-o", tmp_path / "2.json")

    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    assert "nothing left to measure" not in first.stderr
    assert "nothing left to measure: give more --minutes to go on, --fresh to start over" in second.stderr
    assert (tmp_path / "1.json").read_text() == (tmp_path / "2.json").read_text()
    assert "nothing left" not in measure(*flags, "--fresh").stderr
