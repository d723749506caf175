"""A folder is the new one or the old one, also after a kill, and leftovers go."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from narrows._files import _folder
from narrows._files._folder import whole_folder
from narrows.errors import FileError, ResourceError

# Fills a folder, and dies at the n-th call that changes the disk.
KILLED = """
import os, pathlib, shutil, signal, sys
from narrows._files import _folder
calls, last = 0, int(sys.argv[2])
def deadly(call):
    def run(*args, **kwargs):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return run
os.fsync = deadly(os.fsync)
pathlib.Path.rename = deadly(pathlib.Path.rename)
_folder._exchange = deadly(_folder._exchange) if sys.argv[3] == "swap" else lambda *_: False
shutil.rmtree = deadly(shutil.rmtree)
with _folder.whole_folder(sys.argv[1]) as made:
    (made / "a").write_text("new")
    (made / "b").write_text("new")
"""


def content(folder):
    return {one.name: one.read_text() for one in folder.iterdir()}


def fill(folder, text, fault=None):
    with whole_folder(folder) as made:
        (made / "a").write_text(text)
        if fault is not None:
            raise fault


def test_the_folder_appears_whole_and_replaces_all_of_the_previous_one(tmp_path):
    target = tmp_path / "out"
    with whole_folder(target) as made:
        (made / "a").write_text("1")
        (made / "b").write_text("1")
        assert not target.exists()
    with whole_folder(target) as made:
        (made / "a").write_text("2")
        assert content(target) == {"a": "1", "b": "1"}
    assert content(target) == {"a": "2"}
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ValueError, OSError(errno.EINVAL, "Invalid argument")], ids=str)
def test_a_failure_while_filling_changes_nothing(tmp_path, fault):
    fill(tmp_path / "out", "old")
    with pytest.raises(fault if isinstance(fault, type) else OSError):
        fill(tmp_path / "out", "new", fault)
    assert content(tmp_path / "out") == {"a": "old"}
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_a_disk_that_fails_while_filling_is_named_with_the_folder(tmp_path):
    fill(tmp_path / "out", "old")
    with pytest.raises(ResourceError, match=r"out was not written: Input/output error\. Its disk fails: give"):
        fill(tmp_path / "out", "new", OSError(errno.EIO, "Input/output error"))
    assert content(tmp_path / "out") == {"a": "old"}


def test_a_folder_that_is_deleted_while_it_is_filled_is_named(tmp_path):
    (tmp_path / "place").mkdir()

    def filled_after_deleting():
        with whole_folder(tmp_path / "place" / "out") as made:
            shutil.rmtree(tmp_path / "place")
            (made / "a").write_text("new")

    with pytest.raises(FileError, match=r"out was not written: the folder .*place does not exist"):
        filled_after_deleting()


def test_a_new_folder_that_another_process_takes_for_a_leftover_is_made_again(tmp_path, monkeypatch):
    made, mkdtemp = [], tempfile.mkdtemp

    def taken_once(**options):
        made.append(mkdtemp(**options))
        if len(made) == 1:
            Path(made[0]).rmdir()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", taken_once)
    fill(tmp_path / "out", "new")
    assert content(tmp_path / "out") == {"a": "new"}
    assert len(made) == 2


def test_a_new_folder_that_cannot_be_opened_is_removed_and_the_reason_is_told(tmp_path, monkeypatch):
    opened = os.open

    def refused(path, *options, **named):
        if str(path).endswith(_folder.NEW):
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, *options, **named)

    monkeypatch.setattr(_folder.os, "open", refused)
    with pytest.raises(ResourceError, match=r"out was not written: Input/output error\. Its disk fails"):
        fill(tmp_path / "out", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_makes_at_the_same_moment_is_replaced(tmp_path, monkeypatch):
    target, rename = tmp_path / "out", Path.rename

    def late(self, to):
        monkeypatch.setattr(Path, "rename", rename)
        fill(target, "of the other one")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", late)
    fill(target, "new")
    assert content(target) == {"a": "new"}
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("moment", ["filling", "forcing to disk"])
def test_a_full_disk_leaves_the_previous_folder(tmp_path, monkeypatch, moment):
    fill(tmp_path / "out", "old")
    full = OSError(errno.ENOSPC, "No space left on device")

    def refused(_):
        raise full

    if moment == "forcing to disk":
        monkeypatch.setattr(_folder.os, "fsync", refused)
    with pytest.raises(ResourceError, match=r"out was not written: No space left on device\. Free some"):
        fill(tmp_path / "out", "new", full if moment == "filling" else None)
    assert content(tmp_path / "out") == {"a": "old"}
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("way", ["swap", "two renames"])
def test_a_kill_at_any_point_leaves_one_whole_folder_and_the_next_run_cleans_up(tmp_path, way):
    target, kills = tmp_path / "out", 0
    fill(target, "old")
    (target / "b").write_text("old")
    for point in range(1, 20):
        done = subprocess.run([sys.executable, "-c", KILLED, str(target), str(point), way], check=False)
        found = target if target.exists() else next(tmp_path.glob(f".out.*{_folder.OLD}"))
        assert content(found) in ({"a": "old", "b": "old"}, {"a": "new", "b": "new"}), point
        assert target.exists() or way == "two renames"
        if done.returncode == 0:
            break
        kills += 1
    assert kills >= 4  # files, folders, names, removal
    fill(target, "newer")
    assert content(target) == {"a": "newer"}
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_where_names_cannot_be_swapped_the_folder_is_replaced_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(_folder, "_exchange", lambda *_: False)
    fill(tmp_path / "out", "old")
    fill(tmp_path / "out", "new")
    assert content(tmp_path / "out") == {"a": "new"}
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_was_moved_away_by_a_killed_run_is_put_back_first(tmp_path):
    fill(tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / f".out.abcdefgh{_folder.OLD}")
    with pytest.raises(ValueError, match="stop"):
        fill(tmp_path / "out", "new", ValueError("stop"))
    assert content(tmp_path / "out") == {"a": "old"}


def test_a_folder_that_another_process_is_filling_is_left_alone(tmp_path):
    with whole_folder(tmp_path / "out") as first:
        (first / "a").write_text("first")
        fill(tmp_path / "out", "second")
        assert first.exists()
    assert content(tmp_path / "out") == {"a": "first"}


def test_only_leftovers_of_this_name_are_removed(tmp_path):
    for name in (".out.abcdefgh.new", ".outer.abcdefgh.new", ".out.abc.new", ".out.abcdefgh.txt"):
        (tmp_path / name).mkdir()
    fill(tmp_path / "out", "x")
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        ".out.abc.new",
        ".out.abcdefgh.txt",
        ".outer.abcdefgh.new",
        "out",
    ]


def test_every_file_is_forced_to_disk_before_the_folder_gets_its_name(tmp_path, monkeypatch):
    seen = []
    real = os.fsync

    def fsync(file):
        seen.append((Path(f"/proc/self/fd/{file}").readlink().name, (tmp_path / "out").exists()))
        real(file)

    monkeypatch.setattr(_folder.os, "fsync", fsync)
    with whole_folder(tmp_path / "out") as made:
        (made / "a").write_text("x")
        (made / "deep").mkdir()
        (made / "deep" / "b").write_text("x")
    assert {name for name, exists in seen if not exists} == {"a", "b", "deep", made.name}
    assert seen[-1] == (tmp_path.name, True)


def test_permissions_are_those_of_plain_new_files_and_folders(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a").write_text("x")
    with whole_folder(tmp_path / "out") as made:
        (made / "a").write_text("x")
        (made / "a").chmod(0o600)
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "out" / "a").stat().st_mode == (tmp_path / "plain" / "a").stat().st_mode
    (tmp_path / "out").chmod(0o750)
    fill(tmp_path / "out", "y")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_a_link_keeps_pointing_at_what_is_written(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    fill(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "target") == {"a": "x"}


def test_a_file_or_a_missing_parent_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(FileError, match="file is not a folder: it will not be replaced"),
        whole_folder(tmp_path / "file"),
    ):
        pass
    with (
        pytest.raises(FileError, match=r"the folder .*no does not exist\. Make it first"),
        whole_folder(tmp_path / "no" / "out"),
    ):
        pass
