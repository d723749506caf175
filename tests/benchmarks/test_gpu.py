"""Whether a GPU benchmark can run here, and its record."""

from __future__ import annotations

import json
import subprocess
import sys

import benchmark_fakes as fakes
import pytest
import torch

import _gpu
import _sanitize_calls
import backward
import chain
import dense
import gpu_tests
import linear

SCRIPTS = (_sanitize_calls, backward, chain, dense, gpu_tests, linear)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_without_a_cuda_device_a_script_says_so_in_one_sentence_and_exits_3(script, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [script.__name__, *(() if script is _sanitize_calls else ("-",))])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("No CUDA device: torch ")
    assert printed.err.count("\n") == 1


def test_missing_packages_are_named_before_anything_is_imported():
    assert _gpu.missing(("json", "no_such_package", "nor_this_one")) == ["no_such_package", "nor_this_one"]
    reason = _gpu.obstacle(("no_such_package",))
    assert reason.startswith(f"{sys.executable} lacks no_such_package: install what is missing")


def test_an_interpreter_without_any_package_gets_the_sentence(root):
    """-S leaves site-packages out, as on a machine where nothing is installed."""
    command = [sys.executable, "-S", str(root / "benchmarks/_gpu.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": ""})
    assert result.returncode == 3
    assert "lacks click, filelock, numpy, " in result.stderr
    assert result.stderr.count("\n") == 1


def test_with_a_cuda_device_nothing_stands_in_the_way(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _gpu.obstacle() == ""


def test_a_record_does_not_say_where_it_was_written(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks/dense.py", "/home/me/out/dense.json", "--seconds", "1"])
    assert _gpu.command() == "benchmarks/dense.py dense.json --seconds 1"


def test_cold_is_three_caches_and_at_least_180_mb():
    assert _gpu.cold_bytes(50_000_000) == 180_000_000
    assert _gpu.cold_bytes(63_000_000) == 189_000_000


@pytest.mark.parametrize(("own", "calls"), [(1, 2048), (532_480, 339), (201_000_000, 4)])
def test_calls_rotate_over_the_cold_bytes_within_4_and_2048(own, calls):
    assert _gpu.num_calls(own, 180_000_000) == calls


def test_a_slow_part_shortens_all_later_ones_alike():
    clock = fakes.Clock(step=0)
    shares = _gpu.Shares(40.0, 4, clock)
    assert shares.end_of_next() == 10.0
    clock.now = 25.0
    assert shares.end_of_next() == 30.0
    clock.now = 100.0
    assert shares.end_of_next() == 100.0, "nothing is left: the part ends at once"


def test_a_record_is_written_whole_into_a_new_folder(tmp_path):
    path = tmp_path / "new" / "record.json"
    _gpu.save(str(path), {"rows": [1]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"rows": [1]}
    _gpu.save("-", {"rows": [1]})


def test_gpu_tests_count_outcomes_and_are_no_gate_when_none_ran():
    class Report:
        def __init__(self, when, outcome):
            self.when, self.outcome, self.nodeid = when, outcome, f"test_{outcome}"
            self.passed, self.failed = outcome == "passed", outcome == "failed"

    counter = gpu_tests.Counter()
    for when, outcome in [("setup", "passed"), ("call", "passed"), ("teardown", "passed"), ("setup", "skipped")]:
        counter.pytest_runtest_logreport(Report(when, outcome))
    assert counter.counts == {"passed": 1, "failed": 0, "skipped": 1}
    assert gpu_tests.verdict(0, counter.counts) == ""
    counter.pytest_runtest_logreport(Report("call", "failed"))
    assert counter.failed == ["test_failed"]
    assert gpu_tests.verdict(1, counter.counts) == "1 failed (pytest exit status 1)"
    assert gpu_tests.verdict(0, {"passed": 0, "failed": 0, "skipped": 9}) == "not one GPU test ran"


@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # of the interpreter's own loops
def test_every_own_kernel_is_called_for_the_sanitizer():
    if torch.cuda.is_available():
        pytest.skip("here without a GPU: compute-sanitizer's own run is benchmarks/sanitize.sh")
    ran, _, failed = _sanitize_calls.run_all("cpu", ("float32",), sizes=((3, 5, 20, 20, 4),))
    assert not failed
    names = {name.split(" ", 1)[0] for name, _ in _sanitize_calls.calls("cpu", "float32", ((3, 5, 20, 20, 4),))}
    assert names == {"bilinear", "linear", "gated", "attention", "score"}
    assert ran >= len(names)


def test_a_failing_call_is_counted_for_the_sanitizer(monkeypatch):
    def broken():
        raise RuntimeError("misaligned address\nmore")

    monkeypatch.setattr(_sanitize_calls, "calls", lambda *_, **__: [("linear triton", broken)])
    assert _sanitize_calls.run_all("cpu", ("float32",)) == (
        0,
        [],
        ["linear triton: RuntimeError: misaligned address"],
    )


@pytest.mark.gpu
def test_this_gpu_gives_ceilings_and_a_small_chain_is_measured():
    from _setting import this_gpu

    setting = this_gpu(seconds=0.5)
    asked = chain.parse(["-", "--width", "256", "--ranks", "16", "--dense", "none.json"])
    with torch.inference_mode():
        rows = chain.measure(64, asked, setting, end=0.0)
    assert {row["status"] for row in rows} <= {"ok", "refused"}
    own = [row for row in rows if row["mode"] == "memory" and row["variant"] == "triton"]
    assert own
    assert all(row["is_within"] for row in own)
    assert chain.report(rows)


@pytest.mark.gpu
def test_a_small_linear_chain_is_measured_with_hot_and_cold_factors():
    from _setting import this_gpu

    setting = this_gpu(seconds=0.5)
    asked = linear.parse(["-", "--width", "256", "--out", "512", "--ranks", "16"])
    with torch.inference_mode():
        rows = [r for f in ("hot", "cold") for r in linear.measure(4, 512, f, asked, setting, end=0.0)]
    assert {row["status"] for row in rows} <= {"ok", "refused"}
    assert linear.report(rows)


def test_gpu_tests_run_in_several_processes_where_xdist_is(monkeypatch):
    found = {"xdist": object(), "pytest_benchmark": object()}
    monkeypatch.setattr(gpu_tests.importlib.util, "find_spec", found.get)
    assert gpu_tests.in_parallel(8) == ["-n", "8", "-p", "no:benchmark"]
    assert gpu_tests.in_parallel(1) == []
    found.pop("pytest_benchmark")
    assert gpu_tests.in_parallel(4) == ["-n", "4"]
    found.clear()
    assert gpu_tests.in_parallel(8) == []
