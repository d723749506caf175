"""A file is the new one or the old one, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import resource
import stat
from pathlib import Path

import pytest
import torch

from narrows._files import (
    _atomic,
    check_target,
    make_folder,
    read_tensor,
    sha256_tensor,
    write_bytes_atomic,
    write_tensors_atomic,
)
from narrows._files import write_text_atomic as write
from narrows.errors import FileError, ResourceError


def test_text_is_written_as_utf8_over_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    write(path, "old")
    write(path, "n\u00e9w")
    assert path.read_bytes() == "n\u00e9w".encode()
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_tensors_come_back_with_their_bytes(tmp_path):
    weight = torch.randn(3, 5).bfloat16()
    write_tensors_atomic(tmp_path / "w.safetensors", {"w": weight.t()}, metadata={"kind": "test"})
    assert torch.equal(read_tensor(tmp_path / "w.safetensors", "w"), weight.t())


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_atomic.os, "fsync", full)
    with pytest.raises(ResourceError, match=r"a was not written: No space left on device\. Free some space"):
        write(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_file_above_the_systems_limit_is_a_full_disk_too(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ResourceError, match="File too large"):
            write_bytes_atomic(tmp_path / "a", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [each.name for each in tmp_path.iterdir()] == []


def test_ctrl_c_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_atomic.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", "new")
    assert [each.name for each in tmp_path.iterdir()] == []


def test_the_file_is_forced_to_disk_before_it_gets_its_name_and_the_folder_after(tmp_path, monkeypatch):
    seen = []

    def fsync(file):
        kind = "folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file"
        seen.append((kind, (tmp_path / "a").exists()))

    monkeypatch.setattr(_atomic.os, "fsync", fsync)
    write(tmp_path / "a", "new")
    assert seen == [("file", False), ("folder", True)]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileError, match=r"the folder .*no does not exist\. Make it first"):
        write(tmp_path / "no" / "a", "x")


def test_a_folder_or_a_device_is_not_replaced(tmp_path):
    with pytest.raises(FileError, match="is not a regular file: it will not be replaced"):
        write(tmp_path, "x")
    with pytest.raises(FileError, match="/dev/null is not a regular file"):
        write("/dev/null", "x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_path_without_permission_says_so(tmp_path, monkeypatch):
    def refused(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(_atomic.tempfile, "mkstemp", refused)
    with pytest.raises(FileError, match=r"was not written: Permission denied\. Give a path that you may write to"):
        write(tmp_path / "a", "x")


def test_permissions_are_those_of_a_plain_new_file_or_of_the_replaced_one(tmp_path):
    (tmp_path / "plain").write_text("x")
    write(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "a").chmod(0o640)
    write(tmp_path / "a", "y")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_link_keeps_pointing_at_what_is_written(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "x"


def test_the_digest_sees_values_shape_and_dtype_but_not_strides():
    x = torch.arange(6, dtype=torch.float32).view(2, 3)
    assert sha256_tensor(x) == sha256_tensor(x.t().contiguous().t())
    others = [x.view(3, 2), x.double(), x.view(torch.int32), x + 1, x.t(), x[:0], torch.tensor(1.0)]
    assert len({sha256_tensor(each) for each in [x, *others]}) == 8
    assert len(sha256_tensor(x.bfloat16())) == 64


def test_a_target_that_can_be_written_is_passed_and_left_as_it_is(tmp_path):
    (tmp_path / "old").write_text("old")
    check_target(tmp_path / "old")
    check_target(tmp_path / "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old", "old")]


def test_a_target_that_cannot_be_written_is_named_beforehand(tmp_path):
    with pytest.raises(FileError, match=r"the folder .*no does not exist\. Make it first"):
        check_target(tmp_path / "no" / "r.json")
    with pytest.raises(FileError, match="is not a regular file"):
        check_target(tmp_path)
    with pytest.raises(FileError, match=r"/proc/r\.json was not written: .*\. Give a path that you may write to"):
        check_target("/proc/r.json")


def test_a_folder_is_made_with_those_above_it_and_the_name_of_each_is_forced_to_disk(tmp_path, monkeypatch):
    forced = []
    monkeypatch.setattr(_atomic, "_sync_folder", forced.append)
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert sorted(forced) == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_a_folder_that_is_there_stays_and_nothing_is_forced(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    monkeypatch.setattr(_atomic, "_sync_folder", lambda folder: pytest.fail(f"{folder} was forced to disk"))
    make_folder(tmp_path)
    assert (tmp_path / "file").read_text() == "kept"


def test_two_that_write_one_file_at_once_leave_each_others_halves_alone(tmp_path, monkeypatch):
    target, fsync = tmp_path / "file", os.fsync

    def interrupted(file):
        monkeypatch.setattr(os, "fsync", fsync)
        write(target, "inner")
        fsync(file)

    monkeypatch.setattr(os, "fsync", interrupted)
    write(target, "outer")
    assert target.read_text() == "outer"
    assert list(tmp_path.iterdir()) == [target]


def test_too_many_open_files_are_named_and_no_other_path_is_asked_for(tmp_path, monkeypatch):
    def crowded(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(_atomic.tempfile, "mkstemp", crowded)
    with pytest.raises(ResourceError, match=r"file was not written: Too many open files\. Close some, or raise the"):
        write(tmp_path / "file", "new")
