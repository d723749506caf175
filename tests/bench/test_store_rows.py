"""Rows of the store carry digests: a damaged one is left out and named, an older store gets them."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing

import pytest

from bench.experiments import small
from bench.in_process import InProcess
from narrows.bench import _store_rows, _sweep
from narrows.bench._measure import run_experiment
from narrows.bench._store import Store
from narrows.errors import FileError, ResourceError


@pytest.fixture
def path(tmp_path):
    """Return a store with two facts and three samples."""
    with Store(tmp_path / "s.sqlite") as store:
        store.put_fact("one", "check", {"status": "ok", "worst": 0.25})
        store.put_fact("two", "check", [1, 2])
        for number in range(3):
            store.add_sample("row", number, 10.5 + number, 3)
    return tmp_path / "s.sqlite"


def spoil(path, *statements):
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)


def held(path):
    with Store(path) as store:
        return store.damaged, store.fact("one"), store.fact("two"), store.samples("row")


WHOLE = ({"status": "ok", "worst": 0.25}, [1, 2], [(0, 10.5), (1, 11.5), (2, 12.5)])


def test_whole_rows_are_all_there_and_none_is_called_damaged(path):
    assert held(path) == ((), *WHOLE)


@pytest.mark.parametrize(
    ("change", "damaged", "left"),
    [
        (
            'UPDATE facts SET value = \'{"status": "ok", "worst": 0.75}\' WHERE key = \'one\'',
            "fact one",
            (None, *WHOLE[1:]),
        ),
        ("UPDATE facts SET kind = 'cheque' WHERE key = 'one'", "fact one", (None, *WHOLE[1:])),
        ("UPDATE facts SET key = 'ond' WHERE key = 'one'", "fact ond", (None, *WHOLE[1:])),
        ("UPDATE facts SET value = CAST(value AS BLOB) WHERE key = 'one'", "fact one", (None, *WHOLE[1:])),
        ("UPDATE samples SET ns = 11.25 WHERE round = 1", "sample row 1", (*WHOLE[:2], [(0, 10.5), (2, 12.5)])),
        ("UPDATE samples SET round = 9 WHERE round = 2", "sample row 9", (*WHOLE[:2], [(0, 10.5), (1, 11.5)])),
        ("UPDATE samples SET calls = 2 WHERE round = 0", "sample row 0", (*WHOLE[:2], [(1, 11.5), (2, 12.5)])),
        ("UPDATE samples SET at = '2020' WHERE round = 0", "sample row 0", (*WHOLE[:2], [(1, 11.5), (2, 12.5)])),
        ("UPDATE samples SET digest = 'x' WHERE round = 0", "sample row 0", (*WHOLE[:2], [(1, 11.5), (2, 12.5)])),
    ],
)
def test_a_damaged_row_is_left_out_and_named_once(path, change, damaged, left):
    spoil(path, change)

    assert held(path) == ((f"{damaged} is not what was written",), *left)
    assert held(path) == ((), *left)  # it is gone, the others are as they were


def test_a_row_that_was_left_out_can_be_measured_again(path):
    spoil(path, "UPDATE samples SET ns = 11.25 WHERE round = 2")
    with Store(path) as store:
        store.add_sample("row", 2, 12.5, 3)

    assert held(path) == ((), *WHOLE)


def test_no_flipped_bit_of_a_row_reads_as_another_value(path):
    data = path.read_bytes()
    places = [place for place in range(len(data)) if data[place]]
    for place in random.Random(0).sample(places, 150):  # noqa: S311 (no secret)
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            damaged, *found = held(path)
        except (FileError, ResourceError) as fault:
            assert "s.sqlite" in str(fault)  # noqa: PT017 (or it is read)
        else:
            assert damaged or tuple(found) == WHOLE


def test_a_store_of_the_first_schema_keeps_all_it_holds_and_gets_digests(tmp_path):
    path = tmp_path / "s.sqlite"
    spoil(
        path,
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE facts (key TEXT PRIMARY KEY, kind TEXT NOT NULL, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE samples (key TEXT NOT NULL, round INTEGER NOT NULL, ns REAL NOT NULL CHECK (ns > 0), "
        "calls INTEGER NOT NULL, at TEXT NOT NULL, PRIMARY KEY (key, round)) WITHOUT ROWID",
        "INSERT INTO meta VALUES ('schema', '1')",
        "INSERT INTO facts VALUES ('one', 'check', '{\"status\": \"ok\", \"worst\": 0.25}'), ('two', 'x', '[1, 2]')",
        "INSERT INTO samples VALUES ('row', 0, 10.5, 3, 't'), ('row', 1, 11.5, 3, 't'), ('row', 2, 12.5, 3, 't')",
    )

    assert held(path) == ((), *WHOLE)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT value FROM meta").fetchall() == [(str(_store_rows.SCHEMA),)]
        assert db.execute("SELECT count(*) FROM samples WHERE length(digest) = 32").fetchone() == (3,)
    spoil(path, "UPDATE samples SET ns = 11.25 WHERE round = 1")
    assert held(path)[0] == ("sample row 1 is not what was written",)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE meta SET value = '3'",
        "UPDATE meta SET value = '0'",
        "UPDATE meta SET value = 'x'",
        "UPDATE meta SET name = 'scheme'",
        "INSERT INTO meta VALUES ('scheme', '2')",
        "DELETE FROM meta",
        "PRAGMA user_version = 0",
    ],
)
def test_a_damaged_number_of_the_schema_is_told(path, change):
    spoil(path, change)

    with pytest.raises(FileError, match="is damaged: its schema number is .* in one place and . in another"):
        Store(path)


def test_damage_to_what_holds_rows_together_is_told_and_nothing_is_written(path):
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    leaves = [start for start in range(size, len(data), size) if data[start] == 10 and data[start + 4] > 1]
    data[leaves[0] + 4] -= 1  # one row less on its page
    path.write_bytes(data)

    with pytest.raises(FileError, match=r"store .*s\.sqlite is damaged \(.*\)\. Put back a copy of it"):
        Store(path)
    assert path.read_bytes() == data


def test_a_pipe_a_device_and_a_few_bytes_are_no_store(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "short").write_bytes(b"\0")
    for name, text in (("pipe", "no regular file"), ("zero", "no regular file"), ("short", "file is not a database")):
        with pytest.raises(FileError, match=rf"{name} is not a narrows store \(.*{text}\)"):
            Store(tmp_path / name)


def test_a_file_of_pages_without_a_table_is_no_store(tmp_path):
    spoil(tmp_path / "s.sqlite", "CREATE TABLE a (b)", "DROP TABLE a")

    with pytest.raises(FileError, match=r"s\.sqlite is not a narrows store \(2 pages and no table\)"):
        Store(tmp_path / "s.sqlite")


def test_a_fact_that_is_no_json_is_told(path):
    with Store(path) as store, store._db:
        _store_rows.put_row(store._db, "facts", "one", "check", "[" * 100_000, replace=True)
    with Store(path) as store, pytest.raises(FileError, match=r"s\.sqlite: the fact one is no JSON"):
        store.fact("one")


def test_a_run_says_which_rows_of_its_store_are_damaged(path, monkeypatch):
    spoil(path, "UPDATE facts SET kind = 'x' WHERE key = 'one'", "UPDATE samples SET calls = 2 WHERE round = 0")
    monkeypatch.setattr(_sweep, "Worker", InProcess)
    told = []
    run_experiment(small(), store=path, minutes=0.001, progress=told.append)

    (notice,) = [one.text for one in told if one.is_notice and "damaged" in one.text]
    assert notice.startswith(f"2 rows of the store {path} are damaged and are measured again: fact one is not what was")


def test_a_table_whose_name_became_bytes_is_told(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA writable_schema = ON")
        with db:
            db.execute("UPDATE sqlite_master SET name = CAST('facts' AS BLOB) WHERE name = 'facts'")

    with pytest.raises(FileError, match="it holds the tables b'facts', meta, samples"):
        Store(path)
