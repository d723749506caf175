"""The store keeps what was committed, through kills, full disks and strangers."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from narrows.bench._store import Store
from narrows.errors import FileError, ResourceError


def test_facts_and_samples_come_back_as_they_were_put(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.put_fact("k", "check", {"status": "ok", "worst": 0.25})
        store.add_sample("row", 1, 20.5, 3)
        store.add_sample("row", 0, 10.5, 3)
    with Store(tmp_path / "s.sqlite") as store:
        assert store.fact("k") == {"status": "ok", "worst": 0.25}
        assert store.fact("nothing") is None
        assert store.samples("row") == [(0, 10.5), (1, 20.5)]
        assert store.last_sample_time(["row", "other"]).endswith("Z")
        assert not store.last_sample_time(["other"])


def test_the_same_sample_twice_is_refused(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.add_sample("row", 0, 10.0, 1)
        with pytest.raises(sqlite3.IntegrityError):
            store.add_sample("row", 0, 11.0, 1)


@pytest.mark.parametrize("ns", [0.0, -1.0, float("nan")])
def test_a_time_that_is_not_positive_is_never_kept(tmp_path, ns):
    with Store(tmp_path / "s.sqlite") as store, pytest.raises(sqlite3.IntegrityError):
        store.add_sample("row", 0, ns, 1)


def test_every_commit_is_synced_and_logged_ahead(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_second_run_on_the_same_store_waits_for_the_first_and_finds_what_it_kept(tmp_path):
    first, told = Store(tmp_path / "s.sqlite"), []
    first.add_sample("row", 0, 10.0, 1)

    def waiting():
        told.append(first.samples("row"))
        first.close()

    with Store(tmp_path / "s.sqlite", waiting=waiting) as second:
        assert second.samples("row") == [(0, 10.0)]
    assert told == [[(0, 10.0)]]


@pytest.mark.parametrize("how", ["deleted", "replaced", "folder"])
def test_a_store_that_is_gone_says_so_at_the_next_write(tmp_path, how):
    path = tmp_path / "folder" / "s.sqlite"
    with Store(path) as store:
        store.add_sample("row", 0, 10.0, 1)
        path.rename(tmp_path / "elsewhere")
        if how == "replaced":
            path.write_bytes(b"")
        elif how == "folder":
            path.mkdir()
        with pytest.raises(
            ResourceError, match=r"s\.sqlite is gone: its file was deleted.*what was measured is not kept"
        ):
            store.add_sample("row", 1, 10.0, 1)


def test_a_foreign_file_is_refused_and_left_as_it_was(tmp_path):
    path = tmp_path / "s.sqlite"
    path.write_bytes(b"hello, I am a letter" * 100)
    with pytest.raises(FileError, match="is not a narrows store"):
        Store(path)
    assert path.read_bytes() == b"hello, I am a letter" * 100


def test_a_newer_store_is_refused(tmp_path):
    path = tmp_path / "s.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '99'")
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(FileError, match=r"newer narrows \(schema 99, this one knows 2\)"):
        Store(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    text = r"store .*s\.sqlite could not be opened \(.*\)\. Make its folder writable, or give --store another file"
    with pytest.raises(ResourceError, match=text):
        Store(tmp_path / "file" / "s.sqlite")


FILL = """
import resource, signal, sys
from pathlib import Path
from narrows.bench._store import Store
from narrows.errors import ResourceError
store = Store(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = 60_000
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
for number in range(100_000):
    try:
        store.add_sample("row", number, 1.0, 1)
    except ResourceError as fault:
        print(number, str(fault).replace(chr(10), " "))
        break
    acknowledged = number
import os
os._exit(0)
"""


def test_a_full_disk_is_one_clear_error_and_loses_no_acknowledged_sample(tmp_path):
    path = tmp_path / "s.sqlite"
    done = subprocess.run([sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, check=True)
    number, text = done.stdout.split(" ", 1)
    assert "Free disk space" in text
    assert "everything measured so far is kept" in text
    assert int(number) > 0
    with Store(path) as store:
        assert len(store.samples("row")) == int(number)
        store.add_sample("row", int(number), 1.0, 1)


WRITE = """
import sys
from pathlib import Path
from narrows.bench._store import Store
store = Store(Path(sys.argv[1]))
first = 1 + max((n for n, _ in store.samples("row")), default=-1)
for number in range(first, first + 1_000_000):
    store.add_sample("row", number, 1.0, 1)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_no_acknowledged_sample_is_lost_when_the_writer_is_killed(tmp_path):
    path = tmp_path / "s.sqlite"
    for kill in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.01 * kill)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = int((writer.stdout.read().split("\n")[:-1] or ["-1"])[-1])
        writer.wait()
        writer.stdout.close()
        with Store(path) as store:
            assert len(store.samples("row")) > acknowledged


def test_the_limit_of_this_test_process_was_not_touched():
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
