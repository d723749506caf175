"""Bad input, end to end: one message that names what is wrong, the right exit code, no traceback, nothing lost.

The child's code runs in this process (`InProcess`), but for what only a process of its own can show.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock
from safetensors.torch import save_file

from bench.in_process import InProcess
from narrows import Report
from narrows.bench import _facts, _session, _sweep
from narrows.cli import command

SMALL = ("--tokens", "8,16", "--rank", "4", "--minutes", "0.001")


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr(_sweep, "Worker", InProcess)
    monkeypatch.setattr(_sweep, "FIRST_ROUND_SECONDS", 20.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with one good file and every sort of bad one."""
    path = tmp_path_factory.mktemp("bad")
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    tensors = {"w": normal(32, 48), "x": normal(20, 48), "q": normal(32, 48), "k": normal(30, 48)}
    tensors |= {
        "vector": normal(48),
        "empty": torch.zeros(0, 48),
        "narrow": torch.zeros(48, 0),
        "xwide": normal(20, 40),
    }
    tensors |= {"int": torch.ones(32, 48, dtype=torch.int64), "f8": normal(32, 48).to(torch.float8_e4m3fn)}
    tensors |= {"nan": normal(32, 48), "inf": normal(20, 48), "huge": torch.full((32, 48), 1e300, dtype=torch.float64)}
    tensors["nan"][3, 4], tensors["inf"][0, 0] = float("nan"), float("inf")
    tensors["overflow"] = torch.full((32, 48), 3e38)
    save_file(tensors, path / "m.safetensors")
    whole = (path / "m.safetensors").read_bytes()
    (path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (path / "foreign.safetensors").write_text("hello, this is not a tensor file")
    (path / "none.safetensors").write_bytes(b"")
    (path / "model.pt").write_bytes(b"")
    np.save(path / "complex.npy", np.ones((8, 8), dtype=complex))
    np.save(path / "objects.npy", np.array([{}], dtype=object))
    return path


def measure(folder, line, store=None):
    words = [str(folder / word[1:]) if word.startswith("@") else word for word in line.split()]
    return CliRunner().invoke(command, ["measure", *SMALL, "--store", str(store or folder / "s.sqlite"), *words])


def check(result, code, text):
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert "Traceback" not in result.output
    assert "fault in narrows" not in result.stderr
    assert result.stdout == ""
    assert result.stderr.lower().count("error: ") == 1


W = "--weight @m.safetensors:w "
Q = "--weight @m.safetensors:q "

USAGE = [
    ("--tokens 0", "--tokens='0': '0' needs 1 <= A <= B"),
    ("--rank 8..4", "--rank='8..4': '8..4' needs 1 <= A <= B"),
    ("--rank -3", "--rank='-3': '-3' is neither a whole number nor a range A..B"),
    ("--shape 48x32 --rank 33", "rank=33 is outside 1..32 = min(D=48, E=32)"),
    ("--shape 0x4", "--shape='0x4' must be DxE, e.g. 4096x14336"),
    ("--shape 48x32 --kind bilinear", "Y = X needs a square weight, but it is (32, 48)"),
    ("--shape 8x8 --dtype int8", "dtype=int8 is not supported. Use one of: float32, bfloat16, float16, float64"),
    ("--shape 8x8 --mode fast", "--mode='fast': 'fast' is not one of eager, graph"),
    ("--shape 8x8 --cache warm", "--cache='warm': 'warm' is not one of hot, cold"),
    ("--shape 8x8 --device tpu", "device='tpu' is not known. Use 'cpu', 'cuda' or 'cuda:1'"),
    ("--shape 8x8 --device cuda:x", "device='cuda:x' is not known. Use 'cpu', 'cuda' or 'cuda:1'"),
    ("--shape 8x8 --device meta", "device='meta' is not known"),
    ("--shape 8x8 --seed -1", "seed=-1 must be a whole number within 0..9223372036854775807"),
    ("--shape 8x8 --minutes 0", "minutes=0.0 must be a finite number > 0"),
    ("--shape 8x8 --minutes nan", "minutes=nan must be a finite number > 0"),
    ("--shape 8x8 --minutes inf", "minutes=inf must be a finite number > 0"),
    ("--shape 8x8 --heads 3", "--heads=3 needs a product: give --weight and --weight-right"),
    ("--shape 8x8 --kv-heads 3", "--kv-heads=3 needs a product: give --weight and --weight-right"),
    ("--weight-right @m.safetensors:w", "m.safetensors:w needs --weight, the left operand, too"),
    ("--shape 8x8 " + W, "--shape=8x8 and --weight exclude each other: the file gives the shape"),
    ("--weight @m.safetensors", "must be FILE:TENSOR, e.g. model.safetensors:layers.0"),
    ("--weight @m.safetensors:", "must be FILE:TENSOR"),
    ("--weight @gone.safetensors:w", "gone.safetensors does not exist. Give a .safetensors or .npy file"),
    ("--weight @cut.safetensors:w", "is not a complete safetensors file"),
    ("--weight @foreign.safetensors:w", "foreign.safetensors (32 bytes) is not a complete safetensors file"),
    ("--weight @none.safetensors:w", "none.safetensors (0 bytes) is not a complete safetensors file"),
    ("--weight @model.pt:w", "model.pt is a pickle (.pt): reading one can run any program"),
    ("--weight @objects.npy", "objects.npy is not a complete .npy file of numbers"),
    ("--weight @complex.npy", "weight complex is torch.complex128: give a floating-point tensor"),
    ("--weight @m.safetensors:wz", "has no tensor 'wz' among its 14. Nearest: w"),
    ("--weight @m.safetensors:vector", "m.safetensors:vector has shape (48,); it must have 2 dimensions, (E, D)"),
    ("--weight @m.safetensors:empty", "m.safetensors:empty has shape (0, 48); both dimensions must be at least 1"),
    ("--weight @m.safetensors:narrow", "m.safetensors:narrow has shape (48, 0); both dimensions must be at least 1"),
    ("--weight @m.safetensors:int", "weight int is torch.int64: give a floating-point tensor (float32, bfloat16"),
    ("--weight @m.safetensors:f8", "weight f8 is torch.float8_e4m3fn: give a floating-point tensor"),
    ("--weight @m.safetensors:nan", "weight nan (32, 48) holds 1 NaN or Inf, the first at (3, 4)"),
    ("--weight @m.safetensors:huge", "weight huge (32, 48) holds 1e+300, above 3.4e+38, the largest float32"),
    (W + "--rank 33", "rank=33 is outside 1..32 = min(D=48, E=32)"),
    (W + "--heads 2", "--heads=2 needs a product"),
    (W + "--input @m.safetensors:inf", "input (20, 48) holds 1 NaN or Inf, the first at (0, 0)"),
    (W + "--input @m.safetensors:xwide", "input (20, 40) must be (N, D) with D=48 and N >= 16"),
    (W + "--input @m.safetensors:x --tokens 32", "input (20, 48) must be (N, D) with D=48 and N >= 32"),
    (W + "--input @m.safetensors:int", "input is torch.int64: give a floating-point tensor"),
    (Q + "--weight-right @m.safetensors:k", "weight (32, 48) over 1 heads and weight-right (30, 48) over 1 heads"),
    (Q + "--weight-right @m.safetensors:q --heads 3", "weight (32, 48) over 3 heads and weight-right (32, 48) over 3"),
    (Q + "--weight-right @m.safetensors:q --rank 33", "--rank=33: 33 is above 32, the most that --weight and"),
    (Q + "--weight-right @m.safetensors:nan", "weight-right of q (32, 48) holds 1 NaN or Inf"),
    ("--bogus", "No such option"),
    ("extra", "Got unexpected extra argument"),
]


@pytest.mark.parametrize(("line", "text"), USAGE, ids=[line.replace("@", "") for line, _ in USAGE])
def test_a_wrong_argument_is_one_message_and_exit_2(folder, line, text):
    check(measure(folder, line), 2, text)


def test_a_device_that_is_not_there_says_what_was_found(folder):
    if torch.cuda.is_available():
        pytest.skip("not shown: this machine has a GPU")
    result = measure(folder, "--shape 8x8 --device cuda")
    assert result.exit_code == 2
    assert "device='cuda' is not there: torch" in result.stderr
    assert "Use device='cpu'" in result.stderr


def test_a_file_name_that_a_report_cannot_hold_is_refused(folder):
    result = measure(folder, "--weight \udcff.safetensors:w")
    assert result.exit_code == 2
    assert ".safetensors:w' is not valid UTF-8: a report could not hold it. Rename the file" in result.stderr


def test_numbers_that_overflow_on_the_way_have_no_time_and_say_so(folder):
    result = measure(folder, "--weight @m.safetensors:overflow")
    assert result.exit_code == 3
    assert "4 wrong result (the exact result reaches" in result.stderr
    assert "above 3.4e+38, the largest float32" in result.stderr


def test_graph_mode_on_a_cpu_is_refused_in_words(folder):
    result = measure(folder, "--shape 8x8 --mode graph")
    assert result.exit_code == 3
    assert "rows have no time" in result.stderr
    assert "refused (graph mode replays a CUDA graph; this is a CPU)" in result.stderr


# Memory


def test_a_length_that_does_not_fit_is_marked_and_the_sweep_goes_on(folder, tmp_path, monkeypatch):
    """By formula, times 1.15: 8 tokens take 2649 bytes at most (dense), 16 tokens 3532 at least (rank 4)."""
    monkeypatch.setattr(_facts, "available_bytes", lambda _: 3300)
    monkeypatch.setattr(_session, "shortage", lambda *_: "")
    result = measure(folder, f"--shape 16x16 -o {tmp_path}/r.json", tmp_path / "s")
    report = Report.from_json((tmp_path / "r.json").read_text())
    assert result.exit_code == 0, result.output
    assert {(row.tokens, row.status) for row in report.rows} == {(8, "ok"), (16, "does not fit")}
    assert all("GiB are free" in row.reason for row in report.rows if row.tokens == 16)
    assert "4 does not fit (needs 0.00 GiB, 0.00 GiB are free)" in result.stderr


def test_an_input_too_large_to_make_costs_its_length_only(folder, tmp_path, monkeypatch):
    """One token of 16 features takes 128 bytes while it is made and cast."""
    monkeypatch.setattr(_session, "shortage", lambda num_bytes, _: "" if num_bytes <= 64 * 128 else "needs more")
    result = measure(folder, f"--shape 16x16 --tokens 64,128 -o {tmp_path}/r.json", tmp_path / "s")
    report = Report.from_json((tmp_path / "r.json").read_text())
    assert result.exit_code == 0, result.output
    assert {row.status for row in report.rows if row.tokens == 64} == {"ok"}
    assert {(row.status, row.reason) for row in report.rows if row.tokens == 128} == {
        ("does not fit", "an input of 128 tokens did not fit when this run started")
    }
    assert {error.tokens for error in report.errors} == {64}
    assert "rows have no time" in result.stderr
    assert "does not fit (an input of 128 tokens did not fit" in result.stderr


# The store


@pytest.mark.parametrize("what", ["folder", "text", "database"])
def test_a_store_that_is_something_else_is_refused_and_left_as_it_was(folder, tmp_path, what):
    path = tmp_path / "store"
    if what == "folder":
        path.mkdir()
    elif what == "text":
        path.write_text("dear diary, " * 20)
    else:
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE bookmarks (url TEXT)")
        db.close()
    before = None if what == "folder" else path.read_bytes()
    result = measure(folder, "--shape 8x8", path)

    texts = {
        "folder": "store is a folder. Give --store a file in it, e.g. ",
        "text": "store is not a narrows store (file is not a database). Give --store another file",
        "database": "store is not a narrows store (it holds the tables bookmarks). Give --store another file",
    }
    check(result, 2, texts[what])
    assert before is None or path.read_bytes() == before


def test_a_second_run_on_one_store_says_that_it_waits(folder, tmp_path):
    store = tmp_path / "s.sqlite"
    lock = FileLock(f"{store}.lock", thread_local=False)
    lock.acquire()
    threading.Timer(1.5, lock.release).start()
    result = measure(folder, "--shape 8x8", store)
    assert result.exit_code == 0
    assert f"another run measures into {store}: waiting for its end" in result.stderr


NARROWS = (sys.executable, "-m", "narrows", "measure", "--shape", "8x8", *SMALL)


def test_a_full_disk_is_exit_3_and_what_was_kept_stays(tmp_path):
    """A limit on the size of files stands for the disk: the store's first page is 4096 bytes."""
    done = subprocess.run(
        [*NARROWS, "--store", str(tmp_path / "s")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert done.returncode == 3, done.stderr
    assert "could not be written (disk I/O error). Free disk space or make it writable, then run again" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_starting_is_130_and_leaves_no_child(tmp_path):
    run = subprocess.Popen([*NARROWS, "--store", str(tmp_path / "s")], stderr=subprocess.PIPE, text=True)
    assert "starting" in run.stderr.readline()
    os.kill(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 130
    assert "stopped: everything measured so far is kept" in errors
    assert "Traceback" not in errors


# Reports


@pytest.mark.parametrize("verb", ["show", "choose", "compare"])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be read: No such file or directory"),
        (b'{"schema": 1, "exper', "is not a complete JSON document"),
        (b"\xff\xfe\x00binary", "is not a complete JSON document"),
        (b"[]", "is JSON but not a narrows report"),
        (b'{"schema": 99}', "has schema 99; this version of narrows reads up to 2. Update narrows"),
        (b'{"schema": 1}', "is not a valid narrows report"),
    ],
)
def test_a_truncated_or_foreign_report_is_named_by_every_verb_that_reads_one(tmp_path, verb, content, text):
    path = tmp_path / "r.json"
    if content is not None:
        path.write_bytes(content)
    extra = {"show": [], "choose": ["--tokens", "64"], "compare": [str(path)]}[verb]
    result = CliRunner().invoke(command, [verb, str(path), *extra])
    check(result, 2, text)
    assert str(path) in result.stderr


def test_these_checks_would_see_a_traceback_and_a_wrong_code(monkeypatch, folder):
    monkeypatch.setattr(InProcess, "ask", lambda *_, **__: json.loads("{"))
    result = measure(folder, "--shape 8x8")
    with pytest.raises(AssertionError):
        check(result, 2, "JSON")
