"""Damage to the store of choices: each is named, and none hides a row."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from kernels.tuned.records import SILICON, entry
from narrows.errors import FileError
from narrows.kernels.tuned import _store


@pytest.fixture
def path(tmp_path):
    _store.write(tmp_path / "tuned.sqlite", SILICON, [entry(), entry(tokens=128)])
    return tmp_path / "tuned.sqlite"


def spoil(path, statement, *values):
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement, values)


def test_a_row_whose_silicon_was_damaged_is_not_taken_for_another_devices(path):
    spoil(path, "UPDATE choices SET silicon = replace(silicon, 'Test GPU', 'Tesu GPU') WHERE signature LIKE '%T=128%'")
    found = _store.read(path, SILICON)

    assert [one.tokens for one in found.entries] == [64]
    assert found.faults[0].endswith("its content does not match its digest")


def test_whole_rows_of_another_silicon_are_no_fault(path):
    _store.write(path, replace(SILICON, name="Other GPU"), [entry(tokens=256)])

    assert [one.tokens for one in _store.read(path, SILICON).entries] == [128, 64]
    assert _store.read(path, SILICON).faults == ()


def test_a_text_that_is_no_utf_8_any_more_costs_its_row_only(path):
    data = path.read_bytes()
    place = data.index(b'"kind": "bilinear"') + 9
    path.write_bytes(data[:place] + b"\xc2" + data[place + 1 :])
    found = _store.read(path, SILICON)

    assert (len(found.entries), len(found.faults)) == (1, 1)
    assert found.faults[0].isprintable()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE meta SET value = '0'",
        "UPDATE meta SET name = 'scheme'",
        "DELETE FROM meta",
        "UPDATE meta SET value = x'31'",
    ],
)
def test_a_damaged_number_of_the_schema_is_told_and_not_written_over(path, change):
    spoil(path, change)
    for action in (lambda: _store.read(path, SILICON), lambda: _store.write(path, SILICON, [entry()])):
        with pytest.raises(FileError, match="it has no schema number"):
            action()


def test_damage_to_what_holds_rows_together_is_told(path):
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    (leaf,) = [start for start in range(size, len(data), size) if data[start] == 10 and data[start + 4] == 2]
    data[leaf + 4] = 1  # one row less on its page
    path.write_bytes(data)

    with pytest.raises(FileError, match="it is damaged: "):
        _store.read(path, SILICON)


def test_a_pipe_a_device_and_a_few_bytes_are_no_store(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "short").write_bytes(b"\0")
    for name, text in (("pipe", "no regular file"), ("zero", "no regular file"), ("short", "file is not a database")):
        with pytest.raises(FileError, match=rf"{name} is not a store of tuned choices \(.*{text}\)"):
            _store.read(tmp_path / name, SILICON)


def test_a_file_of_pages_without_a_table_is_not_taken_for_an_empty_store(tmp_path):
    spoil(tmp_path / "s.sqlite", "CREATE TABLE a (b)")
    spoil(tmp_path / "s.sqlite", "DROP TABLE a")

    with pytest.raises(FileError, match="2 pages and no table"):
        _store.read(tmp_path / "s.sqlite", SILICON)
