"""What a damaged or foreign store says, and a time that is none."""

from __future__ import annotations

import re
import sqlite3

import pytest

from kernels.tuned.records import entry, signature
from narrows._values import Row
from narrows.bench import _store_rows, _tune_run
from narrows.bench._store import Store
from narrows.errors import FileError, InputError, ResourceError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        store.put_fact("k", "check", 1)
    return path


def test_a_fact_that_is_no_json_is_named(path):
    text = f"store {path}: the fact k is no JSON. Give --store another file."
    with Store(path) as store:
        store._db.execute("UPDATE facts SET value = '{'")
        with pytest.raises(FileError, match=re.escape(text)):
            store.fact("k")


def test_a_message_of_sqlite_that_is_no_text_is_a_foreign_file(path):
    text = re.escape(f"{path} is not a narrows store (malformed). Give --store another file.")
    with Store(path) as store, pytest.raises(FileError, match=text), store._translated():
        b"\xff".decode()


def test_what_holds_the_rows_together_must_be_whole(path, monkeypatch):
    text = f"store {path} is damaged (row 3 missing from index). Put back a copy of it, or give --store another file"
    monkeypatch.setattr(_store_rows, "structural_damage", lambda _: "row 3 missing from index")
    with pytest.raises(FileError, match=re.escape(text)):
        Store(path)


def test_two_numbers_of_the_schema_that_differ_are_shown(path):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    text = f"store {path} is damaged: its schema number is '2' in one place and 7 in another. Put back a copy"
    with pytest.raises(FileError, match=re.escape(text)):
        Store(path)


@pytest.mark.parametrize("ns", [0.0, -1.5, float("inf"), float("nan")])
def test_a_row_with_a_time_that_is_none_is_refused(ns):
    with pytest.raises(InputError, match=f"samples_ns={ns} must be finite and > 0: a time is"):
        Row(8, 4, "two", "eager", "hot", "ok", samples_ns=(3.0, ns))


def test_a_timed_row_that_multiplies_nothing_is_refused():
    with pytest.raises(InputError, match=r"flops=0 must be at least 1 in a row with samples: no product has fewer"):
        Row(8, 4, "two", "eager", "hot", "ok", samples_ns=(3.0,))


def test_tuned_choices_that_vanish_while_they_are_made_are_counted(tmp_path):
    tuner = object.__new__(_tune_run.Tuner)
    tuner._path, tuner._known = tmp_path / "t.sqlite", {signature(): entry(), signature(tokens=128): entry(tokens=128)}
    tuner._kept = dict
    text = r"the tuned choices in .*t\.sqlite are gone: the file was deleted or replaced.* Lost: 2\. Put it back"
    with pytest.raises(ResourceError, match=text):
        tuner._checked()
