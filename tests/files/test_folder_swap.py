"""Two folders that change places in one step, where the system can; elsewhere the folder is replaced all the same."""

from __future__ import annotations

import ctypes
import errno
from types import SimpleNamespace

import pytest

from narrows._files import _folder
from narrows._files._folder import whole_folder
from narrows.errors import FileError, ResourceError


@pytest.fixture
def old(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")
    return tmp_path / "out"


def replace(folder):
    with whole_folder(folder) as made:
        (made / "a").write_text("new")


def failing_with(monkeypatch, number):
    def renameat2(*_):
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(_folder.ctypes, "CDLL", lambda *_, **__: SimpleNamespace(renameat2=renameat2))


def test_two_folders_change_places(old, tmp_path):
    (tmp_path / "other").mkdir()
    if not _folder._exchange(tmp_path / "other", old):
        pytest.skip("not shown: this file system cannot swap two names")
    assert (tmp_path / "other" / "a").read_text() == "old"
    assert list(old.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENOTSUP])
def test_a_file_system_that_cannot_swap_gets_two_renames(old, monkeypatch, number):
    failing_with(monkeypatch, number)
    replace(old)
    assert (old / "a").read_text() == "new"
    assert [one.name for one in old.parent.iterdir()] == ["out"]


def test_a_system_without_the_call_gets_two_renames(old, monkeypatch):
    monkeypatch.setattr(_folder.ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    replace(old)
    assert (old / "a").read_text() == "new"


@pytest.mark.parametrize(("number", "error"), [(errno.EIO, ResourceError), (errno.EACCES, FileError)])
def test_a_swap_that_fails_otherwise_is_told_and_changes_nothing(old, monkeypatch, number, error):
    failing_with(monkeypatch, number)
    with pytest.raises(error, match="out was not written: "):
        replace(old)
    assert (old / "a").read_text() == "old"
    assert [one.name for one in old.parent.iterdir()] == ["out"]
