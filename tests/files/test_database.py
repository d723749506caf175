"""What may be opened as a database, and what of one is damaged."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest

from narrows._files import decoded, not_a_database, structural_damage, table_names


@pytest.fixture
def path(tmp_path):
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as db, db:
        db.execute("CREATE TABLE rows (value)")
        db.executemany("INSERT INTO rows VALUES (?)", [("x" * 500,) for _ in range(100)])
    return tmp_path / "a.sqlite"


def damage(path):
    with closing(sqlite3.connect(path)) as db:
        return structural_damage(db)


def test_a_database_an_empty_file_and_nothing_may_be_opened(path, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    for name in (path, tmp_path / "empty", tmp_path / "nothing"):
        assert not not_a_database(name)


@pytest.mark.parametrize(("size", "told"), [(1, "file is not a database"), (511, "file is not a database"), (512, "")])
def test_what_is_shorter_than_a_page_is_no_database(tmp_path, size, told):
    (tmp_path / "a").write_bytes(b"x" * size)
    assert not_a_database(tmp_path / "a") == told


def test_a_folder_and_a_pipe_are_no_databases(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not_a_database(tmp_path / "pipe") == not_a_database(tmp_path) == "it is no regular file"


def test_a_whole_database_is_not_damaged_and_names_its_tables(path):
    assert not damage(path)
    with closing(sqlite3.connect(path)) as db:
        assert table_names(db) == {"rows"}


def test_a_database_without_content_is_not_damaged(tmp_path):
    assert not damage(tmp_path / "new.sqlite")


def test_pages_without_a_table_are_damage(path):
    with closing(sqlite3.connect(path)) as db, db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute("DROP TABLE rows")
    assert pages > 10
    assert damage(path) == f"{pages} pages and no table"


def test_a_page_that_is_overwritten_is_damage_told_in_one_short_line(path):
    content = bytearray(path.read_bytes())
    content[4096 : 2 * 4096] = bytes(range(256)) * 16
    path.write_bytes(content)
    told = damage(path)
    assert told.startswith("*** in database main ***")
    assert len(told) <= 200
    assert "\n" not in told


def test_a_text_with_a_flipped_bit_is_decoded_and_shows_it():
    assert decoded(b"abc") == "abc"
    assert decoded(b"ab\xe3") == "ab\ufffd"
