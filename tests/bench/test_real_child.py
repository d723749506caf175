"""A real child process: it measures, survives nothing, and costs nothing but its row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from bench.experiments import small
from narrows import Problem, Report, measure
from narrows.bench import run_experiment
from narrows.bench._client import Worker, WorkerDied
from narrows.errors import DeviceError, InputError, ShapeError

CLI = [sys.executable, "-m", "narrows", "measure", "--shape", "64x64", "--tokens", "16,32", "--rank", "4,16"]


def _children():
    found = psutil.Process().children(recursive=True)
    return [child for child in found if "narrows.bench._worker" in " ".join(child.cmdline())]


def test_a_small_experiment_is_measured_from_end_to_end(tmp_path):
    report = run_experiment(small(caches=("hot", "cold")), store=tmp_path / "s.sqlite", minutes=0.05)
    assert {row.status for row in report.rows} == {"ok"}
    assert {row.cache for row in report.rows} == {"hot", "cold"}
    assert all(row.worst is not None and row.worst <= 1 for row in report.rows if row.status == "ok")
    hot = [row for row in report.rows if row.cache == "hot" and row.status == "ok"]
    assert all(row.peak_memory_bytes is not None for row in hot) or sys.platform != "linux"
    assert Report.from_json(report.to_json()) == report


def test_measure_takes_a_tensor_and_leaves_no_path_of_a_temporary_file(tmp_path):
    import torch

    weight = torch.randn(48, 64)
    problem = Problem("linear", 8, 64, 48)
    report = measure(problem, ranks=(4, 8), weight=weight, store=tmp_path / "s.sqlite", minutes=0.02)
    assert report.experiment.weights[0].path == ""
    assert report.weights[0].factor_errors[8] < report.weights[0].factor_errors[4] < 1
    with pytest.raises(ShapeError, match=r"weight \(64, 48\) must be \(E, D\) = \(48, 64\)"):
        measure(problem, ranks=(4,), weight=weight.T, store=tmp_path / "s.sqlite")


def test_graph_mode_on_a_cpu_is_refused_in_its_rows(tmp_path):
    report = run_experiment(small(tokens=(16,), modes=("graph",)), store=tmp_path / "s.sqlite", minutes=0.02)
    assert {(row.status, row.reason) for row in report.rows} == {
        ("refused", "graph mode replays a CUDA graph; this is a CPU")
    }


def test_a_device_that_is_not_there_is_the_childs_own_error(tmp_path):
    with pytest.raises((DeviceError, InputError), match="cuda"):
        run_experiment(small(device="cuda:7"), store=tmp_path / "s.sqlite", minutes=0.02)


def test_a_killed_child_costs_one_row(tmp_path):
    killed = []

    def kill_once(step):
        if "checking 32 tokens, rank 16 two" in step.text and not killed:
            killed.extend(_children())
            for child in killed:
                child.send_signal(signal.SIGKILL)

    report = run_experiment(small(), store=tmp_path / "s.sqlite", minutes=0.1, progress=kill_once)
    marked = [(row.tokens, row.rank, row.variant, row.status) for row in report.rows if row.status != "ok"]
    assert killed
    assert marked == [(32, 16, "two", "killed (signal 9)")]


def test_a_child_that_hangs_is_ended_and_said_to_have_timed_out():
    with Worker() as worker, pytest.raises(WorkerDied, match="timed out: no answer within 0 s"):
        worker.ask("open", timeout=0.0, experiment=json.dumps({}), folder="")
    assert not _children()


def test_no_child_outlives_a_run(tmp_path):
    run_experiment(small(tokens=(16,), ranks=(4,)), store=tmp_path / "s.sqlite", minutes=0.01)
    assert not _children()


def _start(tmp_path, minutes):
    command = [*CLI, "--store", str(tmp_path / "s.sqlite"), "--minutes", str(minutes), "-o", str(tmp_path / "r.json")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_for_samples(path):
    import sqlite3

    for _ in range(2400):
        time.sleep(0.05)
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
                count = db.execute("SELECT count(*) FROM samples").fetchone()[0]
            db.close()
        except sqlite3.OperationalError:
            continue
        if count > 5:
            return count
    raise AssertionError("no samples within 120 s")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_stopped_or_killed_goes_on_with_what_it_had(tmp_path, how):
    run = _start(tmp_path, minutes=5)
    kept = _wait_for_samples(tmp_path / "s.sqlite")
    os.kill(run.pid, how)
    _, errors = run.communicate(timeout=60)
    if how == signal.SIGINT:
        assert run.returncode == 130
        assert "everything measured so far is kept; run the same command to continue" in errors
        assert "Traceback" not in errors
    assert not (tmp_path / "r.json").exists()
    again = _start(tmp_path, minutes=0.01)
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    report = Report.from_json((tmp_path / "r.json").read_text())
    assert sum(len(row.samples_ns) for row in report.rows) >= kept
