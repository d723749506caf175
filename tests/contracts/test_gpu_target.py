"""`make gpu`: tests before benchmarks, parts by name, and exit status 3 where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

ALL = ["_gpu", "gpu_tests", "chain", "linear", "attention", "backward", "scores", "fp8", "narrows measure"]


def run(command: list[str], root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"PARTS", "TUNE", "LAYERS", "NAME"}}
    # No device is visible, so that nothing is measured where there is one.
    env = {**kept, "CUDA_VISIBLE_DEVICES": "", **environment}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """Return a stand-in for Python that notes its arguments and fails where FAILING names one of them."""
    script = tmp_path / "python"
    script.write_text(
        f'#!/bin/sh\necho "$*" >>"{tmp_path}/calls"\n'
        'case "$*" in *"${FAILING:-nothing}"*) exit "${STATUS:-1}" ;; esac\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    return script


def gpu(root: Path, interpreter: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run gpu.sh with the stand-in; return the result and what was called."""
    folder = interpreter.parent
    result = run(["benchmarks/gpu.sh"], root, PYTHON=str(interpreter), RESULTS=str(folder / "results"), **environment)
    log = folder / "calls"
    return result, log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def names(calls: list[str]) -> list[str]:
    """Return which script or verb each call runs."""
    first = [call.split() for call in calls]
    return [
        f"{words[1]} {words[2]}" if words[0] == "-m" else words[0].removeprefix("benchmarks/").removesuffix(".py")
        for words in first
    ]


def test_without_a_cuda_device_the_script_exits_3_with_one_sentence(root: Path) -> None:
    result = run(["benchmarks/gpu.sh"], root, PYTHON=sys.executable)
    assert result.returncode == 3
    assert result.stdout == ""
    assert result.stderr.startswith("No CUDA device: ")
    assert result.stderr.count("\n") == 1


def test_make_shows_the_3_that_it_cannot_return(root: Path) -> None:
    """GNU make exits 2 whenever a recipe fails, and prints the recipe's own status."""
    result = run(["make", "gpu", f"PYTHON={sys.executable}"], root)
    assert result.returncode == 2
    assert "No CUDA device: " in result.stderr
    assert "Error 3" in result.stderr


def test_the_tests_run_first_and_every_part_writes_into_the_results(root: Path, interpreter: Path) -> None:
    result, calls = gpu(root, interpreter)
    assert result.returncode == 0
    assert names(calls) == ALL
    results = interpreter.parent / "results"
    assert all(f"{results}/" in call for call in calls[1:])
    assert f"{results}/chain-gpu.json" in calls[2]
    assert "All is well." in result.stdout


def test_a_failing_test_stops_everything(root: Path, interpreter: Path) -> None:
    result, calls = gpu(root, interpreter, FAILING="gpu_tests")
    assert result.returncode == 1
    assert names(calls) == ALL[:2]
    assert "Nothing was measured: the tests come first." in result.stderr


def test_a_failing_benchmark_does_not_stop_the_others(root: Path, interpreter: Path) -> None:
    result, calls = gpu(root, interpreter, FAILING="linear.py")
    assert result.returncode == 1
    assert names(calls) == ALL
    assert "Failed: linear." in result.stdout


def test_parts_choose_what_runs(root: Path, interpreter: Path) -> None:
    result, calls = gpu(root, interpreter, PARTS="linear tests")
    assert (result.returncode, names(calls)) == (0, ["_gpu", "gpu_tests", "linear"])


def test_an_unknown_part_is_named_before_anything_runs(root: Path, interpreter: Path) -> None:
    result, calls = gpu(root, interpreter, PARTS="chain chian")
    assert (result.returncode, calls) == (2, [])
    assert "PARTS names chian; the parts are: tests chain linear attention backward scores fp8 sweep." in result.stderr


def test_a_missing_package_ends_it_with_3_before_anything_runs(root: Path, interpreter: Path) -> None:
    result, calls = gpu(root, interpreter, FAILING="_gpu.py", STATUS="3")
    assert (result.returncode, names(calls)) == (3, ["_gpu"])


def test_tuning_is_asked_for_and_the_sweep_takes_its_minutes_and_layers(root: Path, interpreter: Path) -> None:
    more = {"TUNE": "3", "MINUTES": "7", "LAYERS": "models", "NAME": "h200", "PARTS": "sweep"}
    _, calls = gpu(root, interpreter, **more)
    assert names(calls) == ["_gpu", *["narrows tune"] * 2, *["narrows measure"] * 3]
    tune, export, sweep, queries, up = calls[1:]
    assert tune.endswith("tune --minutes 3")
    assert "tuned-h200.json" in export
    assert "--minutes 7" in sweep
    assert "bench-h200.json" in sweep
    assert "models/minilm.safetensors:encoder.layer.3.attention.self.query.weight" in queries
    assert "smollm2-up-proj-h200.json" in up
