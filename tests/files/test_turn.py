"""Turns that processes take: one holds it, the others say that they wait."""

from __future__ import annotations

import pytest
from filelock import FileLock, Timeout

from narrows._files import _turn, take_turn, turn
from narrows.errors import FileError


def is_free(path):
    try:
        FileLock(path).acquire(timeout=0).lock.release()
    except Timeout:
        return False
    return True


def test_a_turn_that_is_free_is_taken_without_a_word(tmp_path):
    told = []
    lock = take_turn(tmp_path / "a.lock", waiting=lambda: told.append(1))
    assert not is_free(tmp_path / "a.lock")
    lock.release()
    assert is_free(tmp_path / "a.lock")
    assert told == []


def test_who_waits_says_so_again_and_again_until_it_is_his_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(_turn, "TELL_SECONDS", 0.01)
    first, told = take_turn(tmp_path / "a.lock"), []

    def waiting():
        told.append(1)
        if len(told) == 3:
            first.release()

    second = take_turn(tmp_path / "a.lock", waiting=waiting)
    assert second.is_locked
    assert len(told) == 3
    second.release()


def test_the_turn_to_write_a_file_lasts_as_long_as_its_block_also_where_it_fails(tmp_path):
    path = tmp_path / "file"
    with turn(path):
        assert not is_free(tmp_path / "file.lock")
    assert is_free(tmp_path / "file.lock")
    with pytest.raises(KeyError), turn(path):
        raise KeyError
    assert is_free(tmp_path / "file.lock")
    assert not path.exists()


def test_a_lock_that_cannot_be_made_is_told_of_the_file_it_is_for(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file/x was not written: "), turn(tmp_path / "file" / "x"):
        pass
