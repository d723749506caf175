"""`narrows tune`: what it asks for, shows, writes and reads, on a device that is pretended."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from kernels.tuned.records import OTHER, SILICON, SOFTWARE, candidate, entry
from narrows import bench
from narrows.cli import command, doctor
from narrows.kernels import tuned
from narrows.kernels.tuned import Tuning, _device, _known, _store


def tune(*arguments):
    return CliRunner().invoke(command, ["tune", *map(str, arguments)])


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Pretend a GPU with a store of its own and nothing shipped; return the store's path."""
    path = tmp_path / "tuned.sqlite"
    for module in (_device, tuned):
        monkeypatch.setattr(module, "silicon", lambda _: SILICON)
        monkeypatch.setattr(module, "software", lambda _: SOFTWARE)
    for module in (_store, tuned):
        monkeypatch.setattr(module, "default_path", lambda: path)
    monkeypatch.setattr(bench, "device_index", lambda _: 0)
    monkeypatch.setattr(_known, "shipped", lambda _: ())
    return path


@pytest.fixture
def asked(gpu, monkeypatch):
    """Return what `tune` was called with, in place of running it."""
    calls = []

    def run(**options):
        calls.append(options)
        return (entry(), entry(tokens=128, own=1.0))

    monkeypatch.setattr(bench, "tune", run)
    return calls


def test_without_arguments_it_tunes_the_origins_shapes(asked):
    result = tune()
    assert result.exit_code == 0, result.output
    (options,) = asked
    del options["progress"]
    assert options == {
        "shapes": [(4096, 4096)],
        "tokens": bench.ORIGIN_TOKENS,
        "ranks": bench.ORIGIN_RANKS,
        "kinds": ["bilinear", "linear"],
        "modes": ("graph", "eager"),
        "dtype": "bfloat16",
        "device": "cuda",
        "minutes": bench.TUNE_MINUTES,
        "again": False,
    }
    assert "2.00x [1.99, 2.01]" in result.stdout
    assert "~1.00x" in result.stdout


def test_every_flag_reaches_it(asked):
    flags = "--shape 64x96 --tokens 1,16..64 --rank 4,8 --mode eager --dtype fp16 --device cuda:1 --minutes 2 --again"
    assert tune(*flags.split()).exit_code == 0
    options = asked[0]
    assert (options["shapes"], options["tokens"], options["ranks"]) == ([(64, 96)], (1, 16, 32, 64), (4, 8))
    assert (options["kinds"], options["modes"], options["dtype"]) == (["linear"], ("eager",), "fp16")
    assert (options["device"], options["minutes"], options["again"]) == ("cuda:1", 2.0, True)
    tune("--kind", "linear")
    assert asked[1]["kinds"] == ["linear"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--show", "--clear"], "--show, --export, --import and --clear exclude each other"),
        (["--export", "a", "--import", "b"], "exclude each other"),
        (["--shape", "64"], "--shape='64' must be DxE"),
        (["--mode", "lazy"], "--mode='lazy': 'lazy' is not one of eager, graph"),
        (["--tokens", "x"], "--tokens='x'"),
    ],
)
def test_wrong_usage_exits_2(asked, arguments, text):
    result = tune(*arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert not asked


def test_ctrl_c_says_that_choices_are_kept(gpu, monkeypatch):
    def run(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "tune", run)
    result = tune()
    assert result.exit_code == 130
    assert "stopped: every choice made so far is kept; run the same command to continue." in result.stderr


def test_show_says_what_is_known_from_where_and_what_is_stale(gpu):
    wrong = candidate(median_ns=None, checked=False, reason="7 elements are wrong")
    tuned.write(gpu, SILICON, [entry(more={"gluon": wrong}), entry(software=OTHER, tokens=128)])
    result = tune("--show", "--json")
    assert result.exit_code == 0, result.output
    table = json.loads(result.stdout)["choices"]
    by_tokens = {row["tokens"]: row for row in table["rows"]}
    assert by_tokens[64]["origin"] == "measured"
    assert by_tokens[64]["runs"] == "triton"
    assert by_tokens[64]["speedup"] == 2.0
    assert by_tokens[64]["rejected"] == "gluon: 7 elements are wrong"
    assert by_tokens[64]["config"].startswith("16x64x64 / 4 (4 warps, 3 stages) -> 16x32x64")
    assert by_tokens[128]["origin"] == "measured, stale"
    assert by_tokens[128]["differences"].startswith("torch 2.12.0 (now 2.11.0)")
    assert "Test GPU (sm_90, 132 multiprocessors, 60 MiB L2, 140 GiB)" in table["note"]


def test_an_export_is_imported_again_after_clearing(gpu, tmp_path):
    tuned.write(gpu, SILICON, [entry(), entry(software=OTHER, tokens=128)])
    file = tmp_path / "choices.json"
    result = tune("--export", file)
    assert result.exit_code == 0, result.output
    assert f"wrote {file}: 2 choices for Test GPU" in result.stderr
    cleared = tune("--clear")
    assert cleared.exit_code == 0
    assert f"2 choices deleted from {gpu}" in cleared.stderr
    imported = tune("--import", file)
    assert imported.exit_code == 0, imported.output
    assert f"2 choices kept in {gpu}, 1 of them stale (measured with other versions)" in imported.stderr
    assert len(tuned.read(gpu, SILICON).entries) == 2


def test_an_import_does_not_replace_current_choices_by_stale_ones(gpu, tmp_path):
    tuned.write(gpu, SILICON, [entry(own=3.0)])
    file = tmp_path / "choices.json"
    file.write_text(Tuning(SILICON, (entry(software=OTHER), entry(software=OTHER, tokens=128)), "0.1.0").to_json())
    result = tune("--import", file)
    assert "1 choices kept" in result.stderr
    assert "1 left out: there are current ones here" in result.stderr
    assert entry(own=3.0) in tuned.read(gpu, SILICON).entries


def test_choices_of_another_silicon_are_refused_with_both_named(gpu, tmp_path):
    file = tmp_path / "choices.json"
    file.write_text(Tuning(replace(SILICON, name="Other GPU", is_mig=True), (entry(),), "0.1.0").to_json())
    result = tune("--import", file)
    assert result.exit_code == 2
    assert "holds choices for Other GPU (sm_90, 132 multiprocessors, 60 MiB L2, 140 GiB, a MIG part)" in result.stderr
    assert "this device is Test GPU" in result.stderr
    assert not gpu.exists()


def test_a_file_that_is_no_export_or_not_there_exits_2(gpu, tmp_path):
    file = tmp_path / "choices.json"
    result = tune("--import", file)
    assert (result.exit_code, "cannot be read: No such file" in result.stderr) == (2, True)
    file.write_text("{}")
    assert "is JSON but not a narrows tuning" in tune("--import", file).stderr


def test_nothing_to_export_says_what_to_do(gpu, tmp_path):
    result = tune("--export", tmp_path / "choices.json")
    assert result.exit_code == 2
    assert "there is nothing to export: no choice was measured on Test GPU" in result.stderr
    assert not (tmp_path / "choices.json").exists()


def test_a_damaged_choice_is_left_out_of_an_export_and_named(gpu, tmp_path):
    import sqlite3

    tuned.write(gpu, SILICON, [entry(), entry(tokens=128)])
    db = sqlite3.connect(gpu)
    with db:
        db.execute("UPDATE choices SET digest = 'x' WHERE signature LIKE '%T=128%'")
    db.close()
    result = tune("--export", tmp_path / "choices.json")
    assert "1 choices for" in result.stderr
    assert "left out, damaged: row bilinear T=128" in result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")
@pytest.mark.parametrize("arguments", [[], ["--show"], ["--export", "x.json"], ["--import", "x.json"]], ids=str)
def test_without_a_gpu_it_exits_3_with_one_sentence(arguments):
    result = tune(*arguments)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("error: no CUDA device is here (torch ")
    assert len(result.stderr.splitlines()) == 1


def test_doctor_counts_the_choices_of_a_gpu(gpu):
    tuned.write(gpu, SILICON, [entry(), entry(software=OTHER, tokens=128)])
    assert doctor._tuned("cuda") == {"tuned choices": "2 measured here (1 stale)"}
    assert doctor._tuned("cpu") == {}
