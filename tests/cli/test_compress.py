"""`narrows compress`: tables, folders, exit codes, and what a stopped command keeps."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner

import tiny_models
from models.taught import taught
from narrows._values import ModelBudget
from narrows.bench import _layers_run
from narrows.cli import command
from narrows.cli._budget import parse_budget
from narrows.errors import InputError
from narrows.models import _calibrate_run, _foresee, _load, _speed, load
from narrows.nn import LowRankLinear, PivotLinear

QUICK = ("--context", 64, "--calibration-tokens", 2048)


@pytest.fixture(autouse=True, scope="module")
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_speed, "MOST_ROUNDS", 8)
        patch.setattr(_speed, "SAMPLE_NS", 1e5)
        patch.setattr(_layers_run, "MOST_ROUNDS", 8)
        patch.setattr(_foresee, "PROBE_SECONDS", 0.05)
        yield


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """Return the folder of a dense model with its text beside it."""
    path = tmp_path_factory.mktemp("models")
    documents = [json.dumps({"text": text}) for text in tiny_models.texts(60, 200)]
    (path / "texts.jsonl").write_text("\n".join(documents), encoding="utf-8")
    return tiny_models.folder(taught(), path / "dense")


@pytest.fixture
def compress(dense, tmp_path):
    """Return a function that runs the command on the dense model, into `out` and with `work` for its calibration."""

    def run(*arguments, model=dense, out="out"):
        given = [model, tmp_path / out, "--texts", dense.parent / "texts.jsonl", "--work", tmp_path / "work", *QUICK]
        return CliRunner().invoke(command, ["compress", *map(str, [*given, *arguments])])

    return run


def test_a_folder_is_written_that_check_then_finds_within_its_budget(compress, dense, tmp_path):
    page = tmp_path / "plan.html"
    result = compress("--budget", "keep=0.8", "--html", page)

    assert result.exit_code == 0, result.output
    assert "Perplexity / dense, measured" in page.read_text(encoding="utf-8")
    for text in ("Budget: at most 80 % of the numbers are kept", "perplexity / dense (95 %)", "Frontier"):
        assert text in result.stdout
    assert "model.layers.0.mlp.up_proj" in result.stdout
    assert f"wrote {tmp_path / 'out'}" in result.stderr
    assert "left dense: model.embed_tokens: an embedding" in result.stderr
    model = load(tmp_path / "out")
    assert any(isinstance(layer, (LowRankLinear, PivotLinear)) for layer in model.modules())

    arguments = ["check", tmp_path / "out", "--against", dense, "--windows", 8, "--workload", "prefill:32x1"]
    checked = CliRunner().invoke(command, [str(each) for each in arguments])
    assert checked.exit_code == 0, checked.output
    assert "the part kept for checks" in checked.stdout


def test_no_exits_1_with_the_frontier_and_writes_nothing(compress, tmp_path):
    page = tmp_path / "plan.html"
    result = compress("--budget", "keep=0.1", "--html", page)

    assert result.exit_code == 1
    assert "The frontier" in page.read_text(encoding="utf-8")
    assert "Frontier" in result.stdout
    assert "100.0 %" in result.stdout
    assert "error: No choice meets keep=0.1. The smallest keep is" in result.stderr
    assert not (tmp_path / "out").exists()
    as_json = json.loads(compress("--budget", "keep=0.1", "--json").stdout)
    assert as_json["frontier"]["rows"][0]["kept"] == 1.0


def test_to_stay_dense_is_a_yes_that_writes_nothing(compress, dense, tmp_path):
    result = compress("--budget", "ppl=0%")

    assert result.exit_code == 0, result.output
    assert "stay dense: within this budget nothing smaller is better here." in result.stderr
    assert f"{tmp_path / 'out'} was not written; use {dense}." in result.stderr
    assert not (tmp_path / "out").exists()


def test_times_at_the_workloads_are_shown(compress):
    result = compress("--budget", "keep=0.8", "--workload", "prefill:32x1", "--layer", "re:.*up_proj", "--json")

    assert result.exit_code == 0, result.output
    tables = json.loads(result.stdout)
    figures = {row["figure"]: row["value"] for row in tables["summary"]["rows"]}
    assert figures["speedup at prefill:32x1 (99 %)"] > 0
    assert {row["layer"].rpartition(".")[2] for row in tables["plan"]["rows"]} == {"up_proj"}
    assert all(row["speedup"] is not None for row in tables["frontier"]["rows"])


def test_another_budget_starts_from_the_same_calibration(compress, monkeypatch):
    assert compress("--budget", "keep=0.9").exit_code == 0
    monkeypatch.setattr(_calibrate_run.Run, "_read", lambda *_: pytest.fail("calibration began again"))

    assert compress("--budget", "keep=0.7", out="other").exit_code == 0
    assert compress("--budget", "keep=0.7", "--plain", "--forms", "low-rank", out="third").exit_code == 0


def test_ctrl_c_keeps_what_was_calibrated_and_says_so(compress, monkeypatch, tmp_path):
    read, monotonic = _calibrate_run.Run._read, time.monotonic
    monkeypatch.setattr(_calibrate_run, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(_calibrate_run, "SAVE_SHARE", float("inf"))
    batches = []

    def stopped(self, batch, sums):
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(batch.first)
        read(self, batch, sums)

    monkeypatch.setattr(_calibrate_run.Run, "_read", stopped)
    result = compress("--budget", "keep=0.9")
    assert result.exit_code == 130
    assert "stopped: what was calibrated is kept; run the same command to continue." in result.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["work"]

    seen = []
    monkeypatch.setattr(_calibrate_run.Run, "_read", lambda *given: (seen.append(given[1].first), read(*given)))
    assert compress("--budget", "keep=0.9").exit_code == 0
    assert batches[-1] < seen[0]
    assert monotonic() > 0


def test_ctrl_c_after_the_folder_is_written_still_says_how_to_go_on(compress, monkeypatch, tmp_path):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("narrows.cli.compress._show", stopped)
    result = compress("--budget", "keep=0.9")

    assert result.exit_code == 130
    assert "run the same command to continue" in result.stderr
    assert len(list(tmp_path.iterdir())) == 2


def test_a_dry_run_reads_no_weight_and_says_what_it_would_take(compress, monkeypatch, tmp_path):
    monkeypatch.setattr(_load, "_read", lambda *_: pytest.fail("weights were read"))
    started = time.monotonic()

    result = compress("--budget", "keep=0.8,speedup=1.2", "--workload", "prefill:100x1", "--dry-run")

    assert time.monotonic() - started < 20
    assert result.exit_code == 0, result.output
    for text in (
        "Dry run. Budget: at most 80 % of the numbers are kept, speedup at least 1.2x",
        "14, 73.7 k numbers",
        "calibrating on 2048 tokens, at least",
        "memory at the peak, about",
        "speedup at most, with 80.0 % of the numbers",
        "numbers kept for the speedup asked for",
    ):
        assert text in result.stdout
    assert not list(tmp_path.iterdir())
    figures = json.loads(compress("--budget", "ppl=1%", "--dry-run", "--json").stdout)["dry_run"]["rows"]
    gains = [row["value"] for row in figures if row["figure"].startswith("speedup at most")]
    assert gains == sorted(gains)
    assert gains[0] > 1


def test_a_dry_run_of_an_encoder_and_of_what_cannot_be_done(compress, tmp_path):
    bert = tiny_models.folder(tiny_models.bert(), tmp_path / "bert")

    assert compress("--budget", "keep=0.8", "--dry-run", model=bert).exit_code == 0
    for arguments, text in (
        (("--budget", "ppl=1%"), "needs a model that foretells tokens of text; BertModel does not"),
        (("--budget", "speedup=2"), "speedup=2 needs a workload"),
        (("--budget", "keep=0.8", "--layer", "none"), "none"),
    ):
        result = compress(*arguments, "--dry-run", model=bert)
        assert result.exit_code == 2
        assert text in result.stderr


def test_an_encoder_is_compressed_too(compress, tmp_path):
    bert = tiny_models.folder(tiny_models.bert(initializer_range=0.2), tmp_path / "bert")

    result = compress("--budget", "keep=0.8", model=bert)

    assert result.exit_code == 0, result.output
    assert "cosine with dense embeddings (95 %)" in result.stdout
    assert "perplexity" not in result.stdout.replace("foretells no perplexity", "")
    assert "note: BertModel gives no scores: damage is half the share" in result.stderr


def test_every_format_holds_the_summary_first(compress):
    csv = compress("--budget", "keep=0.8", "--csv").stdout
    md = compress("--budget", "keep=0.8", "--md", out="other").stdout

    assert csv.splitlines()[0] == "figure,value"
    assert md.startswith("**Budget: at most 80 % of the numbers are kept**")


def test_recovery_is_asked_for_in_minutes(compress):
    result = compress(
        "--budget", "keep=0.5", "--recover", 0.005, "--recover-blocks", "--autocast", "bf16", "--dtype", "fp32"
    )

    assert result.exit_code == 0, result.output


def test_what_is_wrong_is_usage_and_writes_nothing(compress, dense, tmp_path):
    for arguments, text in (
        (("--budget", "keep=0.9,keep=0.8"), "gives keep twice"),
        (("--budget", "size=3"), "'size=3' is none of ppl=..., keep=..., speedup=..., bytes=..."),
        (("--budget", "keep=high"), "'high' is not a number"),
        (("--budget", "keep=1.5"), "keep=1.5 must be above 0 and at most 1"),
        (("--budget", "speedup=1.2"), "speedup=1.2 needs a workload to be fast at"),
        (("--budget", "keep=0.9", "--workload", "prefill:lots"), "workload 'prefill:lots' is not understood"),
        (("--budget", "keep=0.9", "--method", "plain"), "method='plain' is not known"),
        (("--budget", "keep=0.9", "--forms", "thin"), "forms=('thin',) must be some of"),
        (("--budget", "keep=0.9", "--recover-blocks"), "--recover-blocks needs --recover MINUTES"),
        (("--budget", "keep=0.9", "--device", "tpu"), "tpu"),
        (("--budget", "keep=0.9", "--dtype", "int3"), "int3"),
        (("--budget", "keep=0.9", "--texts", tmp_path / "none.txt"), "none.txt cannot be read"),
        (("--budget", "keep=0.9", "--layer", "lm_head"), "which stays dense: Linear outside the repeated blocks"),
        (("--budget", "keep=0.9", "--context", 512), "calibration_tokens=2048 must be at least 8 windows"),
    ):
        result = compress(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), (arguments, result.output)
        assert text in result.stderr, arguments
    result = compress("--budget", "keep=0.9", model=tmp_path / "none")
    assert result.exit_code == 2
    assert "none is not a folder on this machine" in result.stderr
    assert not (tmp_path / "out").exists()
    assert not any(tmp_path.iterdir())
    assert dense.exists()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("keep=0.9", ModelBudget(keep=0.9)),
        ("keep=90%", ModelBudget(keep=0.9)),
        ("ppl=1%, speedup=1.2", ModelBudget(perplexity=0.01, speedup=1.2)),
        ("ppl=0.05,bytes=2KiB", ModelBudget(perplexity=0.05, max_bytes=2048)),
    ],
)
def test_a_budget_is_read_as_it_is_written(text, wanted):
    assert parse_budget(text) == wanted


def test_an_empty_budget_is_refused():
    with pytest.raises(InputError, match=r"--budget='': '' is none of ppl=\.\.\."):
        parse_budget("")
