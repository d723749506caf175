"""What kills, full disks and Ctrl-C broke, each defect by itself."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from soak.crashes.case import temporary
from soak.crashes.measure import STORE, Here

from bench.experiments import small
from kernels.tuned.records import SILICON, entry
from narrows._files import _atomic, _folder, check_target, make_folder, write_text_atomic
from narrows._files._folder import whole_folder
from narrows.bench import _sweep, run_experiment
from narrows.bench._client import _START, Worker, WorkerDied
from narrows.errors import ResourceError
from narrows.kernels import tuned
from narrows.models import _save
from narrows.models._moments_store import MomentsStore


def test_a_temporary_file_that_a_kill_left_goes_with_the_next_write(tmp_path):
    (tmp_path / ".r.json.abcdefgh.tmp").write_text("half")
    (tmp_path / ".other.abcdefgh.tmp").write_text("another one's")
    write_text_atomic(tmp_path / "r.json", "new")
    assert sorted(one.name for one in tmp_path.iterdir()) == [".other.abcdefgh.tmp", "r.json"]
    (tmp_path / ".r.json.abcdefgh.tmp").write_text("half")
    check_target(tmp_path / "r.json")
    assert sorted(one.name for one in tmp_path.iterdir()) == [".other.abcdefgh.tmp", "r.json"]


def test_a_temporary_file_that_another_process_writes_stays(tmp_path, monkeypatch):
    seen = []

    def meanwhile(file):
        if not seen:
            seen.extend(temporary(tmp_path))
            write_text_atomic(tmp_path / "r.json", "another process's")
            seen.extend(temporary(tmp_path))

    monkeypatch.setattr(_atomic.os, "fsync", meanwhile)
    write_text_atomic(tmp_path / "r.json", "ours")
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert (tmp_path / "r.json").read_text() == "ours"


def test_a_folder_that_cannot_be_opened_leaves_nothing(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_folder.os, "open", refused)
    with (
        pytest.raises(ResourceError, match="out was not written: No space left on device"),
        whole_folder(tmp_path / "out"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_new_folder_is_forced_to_the_disk(tmp_path, monkeypatch):
    forced = []
    monkeypatch.setattr(_atomic.os, "fsync", lambda file: forced.append(Path(f"/proc/self/fd/{file}").readlink()))
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert sorted(forced) == [tmp_path, tmp_path / "a"]


def test_sums_that_a_kill_left_beside_a_finished_calibration_go_with_the_next_run(tmp_path):
    settings = {"text": "t"}
    with MomentsStore(tmp_path, settings) as store:
        store.save(0, 2, {"layer": torch.ones(2, 2)}, {"tokens": 1})
    (tmp_path / "moments-0-1").mkdir()
    with MomentsStore(tmp_path, settings) as store:
        assert torch.equal(store.tensor(0, "layer"), torch.ones(2, 2))
    assert [one.name for one in tmp_path.iterdir() if one.is_dir()] == ["moments-0-2"]


def test_factors_that_a_kill_left_after_the_last_sample_go_with_the_next_run(tmp_path, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # nobody measures an interpreter
    monkeypatch.setattr(_sweep, "Worker", Here)
    asked = small(tokens=(8,), ranks=(2,), in_features=16, out_features=16)
    first = run_experiment(asked, store=tmp_path / STORE)
    (tmp_path / f"{STORE}.factors").mkdir()
    assert run_experiment(asked, store=tmp_path / STORE) == first
    assert not (tmp_path / f"{STORE}.factors").exists()


def test_a_tokenizer_that_finds_the_disk_full_is_a_full_disk(tmp_path):
    with pytest.raises(OSError, match="No space left on device") as caught, _save._system_errors():
        raise Exception("No space left on device (os error 28)")  # noqa: TRY002 (as tokenizers)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(ValueError, match="another fault"), _save._system_errors():
        raise ValueError("another fault")


LONG = """
import hashlib, sys, click
from narrows.cli import _main
command = click.Command("long", callback=lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds}))
_main.VERBS["long"] = "__main__"
sys.argv = ["narrows", "long"]
print("begun", flush=True)
_main.main()
"""


@pytest.mark.parametrize(("rounds", "code"), [(500_000_000, 130), (1, 0)])
def test_ctrl_c_ends_a_call_into_c_that_takes_minutes(rounds, code):
    words = [sys.executable, "-c", LONG.format(rounds=rounds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "begun\n"
        if code:
            time.sleep(0.5)
            run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=30)  # the call itself takes minutes
    assert run.returncode == code
    text = "stopped in the middle of a step: what was kept before it stays; run the same command to continue."
    assert (text in said) == bool(code)
    assert "Traceback" not in said


def test_a_measuring_process_whose_parent_has_ended_ends_before_it_imports_anything():
    nobody = 1 << 22  # above the largest process number of Linux
    words = [sys.executable, "-P", "-c", f"{_START}; print('went on')", str(nobody)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, input="")
    assert (done.returncode, done.stdout) == (1, "")


def test_a_measuring_process_imports_nothing_from_the_folder_it_is_started_in(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise SystemExit('a stranger was let in')")
    monkeypatch.chdir(tmp_path)
    with Worker() as worker, pytest.raises(WorkerDied, match="AssertionError: open comes first"):
        worker.ask("load_factors", timeout=60.0)


HALF_WRITTEN = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=DELETE")
db.execute("PRAGMA cache_size=1")
db.execute("BEGIN IMMEDIATE")
db.executemany("INSERT INTO choices VALUES (?, ?, ?, '')", [("s", str(i), "x" * 1000) for i in range(100)])
os._exit(0)
"""


def test_choices_are_read_after_a_kill_in_the_midst_of_a_write(tmp_path):
    path = tmp_path / "tuned.sqlite"
    tuned.write(path, SILICON, [entry()])
    subprocess.run([sys.executable, "-c", HALF_WRITTEN, str(path)], check=True)
    assert (tmp_path / "tuned.sqlite-journal").stat().st_size > 0
    assert tuned.read(path, SILICON).entries == (entry(),)
    assert not (tmp_path / "tuned.sqlite-journal").exists()
