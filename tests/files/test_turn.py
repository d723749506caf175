"""Processes that want the same wait for each other, and whoever ends, however it does, gives its turn up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from filelock import FileLock

from narrows._files import take_turn, turn
from narrows.errors import FileError

HOLD = """
import sys, time
from narrows._files import take_turn
lock = take_turn(sys.argv[1])
print("held", flush=True)
time.sleep(600)
"""


def test_nobody_waits_for_a_free_turn(tmp_path):
    take_turn(tmp_path / "lock", waiting=lambda: pytest.fail("waited")).release()


def test_a_turn_that_another_has_is_waited_for_and_told(tmp_path):
    other, told = FileLock(tmp_path / "lock"), []
    other.acquire()

    def waiting():
        told.append(other.is_locked)
        other.release()

    take_turn(tmp_path / "lock", waiting=waiting).release()
    assert told == [True]


def test_a_killed_process_has_no_turn_any_more(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        take_turn(path, waiting=lambda: os.kill(holder.pid, signal.SIGKILL)).release()
    assert holder.returncode == -signal.SIGKILL


def test_a_turn_ends_with_its_block_also_by_an_error(tmp_path):
    with pytest.raises(ValueError, match="planted"), turn(tmp_path / "file"):
        raise ValueError("planted")
    with turn(tmp_path / "file", waiting=lambda: pytest.fail("waited")):
        pass


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with (
        pytest.raises(FileError, match=r"file was not written: the folder .*missing does not exist"),
        turn(tmp_path / "missing" / "file"),
    ):
        pass
