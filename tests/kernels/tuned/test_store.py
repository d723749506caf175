"""The store of choices: many writers, flipped bits, strangers, and how calls read it."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pydantic
import pytest

from kernels.tuned.records import OTHER, SILICON, SOFTWARE, entry
from narrows.errors import FileError, ResourceError
from narrows.kernels import tuned
from narrows.kernels.tuned import Tuning, _device, _known, _records, _store

TESTS = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "tuned.sqlite"


def test_choices_come_back_as_they_were_kept_for_their_own_silicon(path):
    _store.write(path, SILICON, [entry(), entry(tokens=128)])
    other = replace(SILICON, num_multiprocessors=16, is_mig=True)
    _store.write(path, other, [entry(tokens=256)])
    assert sorted(e.tokens for e in _store.read(path, SILICON).entries) == [64, 128]
    assert [e.tokens for e in _store.read(path, other).entries] == [256]
    assert entry() in _store.read(path, SILICON).entries


def test_what_reads_a_choice_is_made_once_for_all_of_them(path, monkeypatch):
    made, adapter = [], pydantic.TypeAdapter
    monkeypatch.setattr(pydantic, "TypeAdapter", lambda kind: made.append(kind) or adapter(kind))
    _records._entry_adapter.cache_clear()
    _store.write(path, SILICON, [entry(tokens=tokens) for tokens in range(1, 9)])
    assert len(_store.read(path, SILICON).entries) == len(_store.read(path, SILICON).entries) == 8
    assert made == [tuned.Entry]


def test_the_same_signature_again_replaces_the_older_choice(path):
    _store.write(path, SILICON, [entry(software=OTHER)])
    _store.write(path, SILICON, [entry(own=3.0)])
    assert _store.read(path, SILICON).entries == (entry(own=3.0),)


def test_no_file_is_no_choices_and_reading_makes_none(path):
    assert _store.read(path, SILICON) == _store.Contents()
    assert not path.parent.exists()
    assert _store.clear(path) == 0


def test_every_write_is_synced_and_logged_ahead(path):
    with _store._opened(path, writing=True) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert db.execute("PRAGMA busy_timeout").fetchone() == (30_000,)


WRITE = """
import sys
from pathlib import Path
from kernels.tuned.records import SILICON, entry
from narrows.kernels.tuned import _store
for number in range(6):
    _store.write(Path(sys.argv[1]), SILICON, [entry(tokens=1 + int(sys.argv[2]) * 100 + number)])
"""


def test_four_processes_that_write_at_once_lose_no_row(path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, str(path), str(n)], env={"PYTHONPATH": str(TESTS)})
        for n in range(4)
    ]
    assert [writer.wait() for writer in writers] == [0] * 4
    found = _store.read(path, SILICON)
    assert sorted(e.tokens for e in found.entries) == sorted(1 + n * 100 + i for n in range(4) for i in range(6))
    assert not found.faults


def spoil(path, statement, *values):
    """Change the database behind the store's back."""
    db = sqlite3.connect(path)
    with db:
        db.execute(statement, values)
    db.close()


def test_a_flipped_bit_is_refused_with_its_row_and_the_others_stay(path):
    _store.write(path, SILICON, [entry(), entry(tokens=128)])
    (text,) = sqlite3.connect(path).execute("SELECT entry FROM choices WHERE signature LIKE '%T=128%'").fetchone()
    flipped = text.replace('"m": 16', '"m": 32', 1)
    assert flipped != text
    spoil(path, "UPDATE choices SET entry = ? WHERE signature LIKE '%T=128%'", flipped)
    found = _store.read(path, SILICON)
    assert [e.tokens for e in found.entries] == [64]
    (fault,) = found.faults
    assert fault.startswith("row bilinear T=128 D=4096 E=4096 R=64 bfloat16 graph: its content does not match its dig")


def test_a_row_that_is_whole_but_no_entry_is_refused_too(path):
    _store.write(path, SILICON, [entry()])
    row = (_store._text(SILICON), "mine", '{"kind": "linear"}')
    spoil(path, "INSERT INTO choices VALUES (?, ?, ?, ?)", *row, _store._digest(*row))
    found = _store.read(path, SILICON)
    assert len(found.entries) == 1
    assert found.faults[0].startswith("row mine: ")


def test_clearing_says_how_many_went(path):
    _store.write(path, SILICON, [entry(), entry(tokens=128)])
    assert _store.clear(path) == 2
    assert _store.read(path, SILICON).entries == ()


@pytest.mark.parametrize("make", ["letter", "foreign", "newer"])
def test_a_file_that_is_no_store_is_refused_and_cleared(path, make):
    path.parent.mkdir()
    if make == "letter":
        path.write_bytes(b"hello, I am a letter" * 300)
    elif make == "foreign":
        spoil(path, "CREATE TABLE songs (name TEXT)")
    else:
        _store.write(path, SILICON, [entry()])
        spoil(path, "UPDATE meta SET value = '99'")
    text = r"newer narrows \(schema 99, this one knows 1\)" if make == "newer" else "is not a store of tuned choices"
    for action in (lambda: _store.read(path, SILICON), lambda: _store.write(path, SILICON, [entry()])):
        with pytest.raises(FileError, match=f"{text}.*narrows tune --clear"):
            action()
    assert _store.clear(path) == 0
    _store.write(path, SILICON, [entry()])
    assert len(_store.read(path, SILICON).entries) == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    text = r"the tuned choices in .*tuned\.sqlite could not be opened \(.*\)\. Make its folder writable"
    with pytest.raises(ResourceError, match=text):
        _store.write(tmp_path / "file" / "tuned.sqlite", SILICON, [entry()])


@contextmanager
def readonly(path, *, writing):
    raise sqlite3.OperationalError("attempt to write a readonly database")
    yield path, writing


@pytest.mark.parametrize("call", ["os.open", "tempfile.TemporaryFile"])
def test_what_sqlite_could_open_for_reading_only_is_told_with_the_cause(path, monkeypatch, call):
    _store.write(path, SILICON, [entry()])

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"narrows.kernels.tuned._store.{call}", full)
    monkeypatch.setattr(_store, "_turn", lambda _: nullcontext())
    monkeypatch.setattr(_store, "_connected", readonly)
    with pytest.raises(ResourceError, match=r"could not be written \(No space left on device\)\. Free disk space"):
        _store.write(path, SILICON, [entry()])


def test_a_writer_that_waits_too_long_is_told(path, monkeypatch):
    monkeypatch.setattr(_store, "BUSY_SECONDS", 0.05)
    with (
        _store._opened(path, writing=True),
        pytest.raises(ResourceError, match=r"tuned\.sqlite are being written by another process for over 0 s"),
        _store._opened(path, writing=True),
    ):
        pass


@pytest.fixture
def device(monkeypatch, tmp_path):
    """Make device 0 the test silicon; the user's store and the shipped folder are empty ones."""
    monkeypatch.setattr(_device, "silicon", lambda _: SILICON)
    monkeypatch.setattr(_device, "software", lambda _: SOFTWARE)
    monkeypatch.setattr(_store, "default_path", lambda: tmp_path / "tuned.sqlite")
    folder = tmp_path / "defaults"
    folder.mkdir()
    real = _known.shipped
    monkeypatch.setattr(_known, "shipped", lambda silicon: real(silicon, folder))
    return tmp_path


def ship(device, *entries):
    (device / "defaults" / "test.json").write_text(Tuning(SILICON, entries, "0.1.0").to_json())


def test_current_counts_before_stale_and_the_users_before_the_shipped(device):
    ship(device, entry(own=1.5), entry(own=1.5, tokens=128), entry(tokens=256, software=OTHER))
    mine = [entry(own=3.0), entry(own=3.0, tokens=128, software=OTHER), entry(tokens=256, software=OTHER, own=3.0)]
    _store.write(device / "tuned.sqlite", SILICON, mine)
    found = _known.known(0)
    assert [(k.entry.tokens, k.origin, k.is_stale) for k in found] == [
        (64, "measured", False),
        (128, "shipped", False),
        (256, "measured", True),
    ]
    assert found[2].differences == ("torch 2.12.0 (now 2.11.0)", "kernels fedcba9876543210 (now 0123456789abcdef)")
    assert tuned.summary(found) == "2 measured here (1 stale), 1 shipped"
    assert tuned.summary(()) == "none: narrows tune measures them"


def test_the_users_choices_can_be_switched_off(device, monkeypatch):
    ship(device, entry(own=1.5))
    _store.write(device / "tuned.sqlite", SILICON, [entry(own=3.0)])
    monkeypatch.setenv("NARROWS_TUNED", "off")
    assert [k.origin for k in _known.known(0)] == ["shipped"]
    monkeypatch.setenv("NARROWS_TUNED", "on")
    assert [k.origin for k in _known.known(0)] == ["measured"]


def test_a_damaged_row_is_one_warning_that_says_what_to_do(device):
    _store.write(device / "tuned.sqlite", SILICON, [entry(), entry(tokens=128), entry(tokens=256)])
    spoil(device / "tuned.sqlite", "UPDATE choices SET digest = 'x' WHERE signature NOT LIKE '%T=64 %'")
    with pytest.warns(
        RuntimeWarning, match=r"2 of the tuned choices in .*T=128.*Start over: narrows tune --clear"
    ) as seen:
        found = _known.known(0)
    assert [k.entry.tokens for k in found] == [64]
    assert len(seen) == 1


def test_a_broken_store_is_one_warning_and_the_shipped_choices(device):
    ship(device, entry())
    (device / "tuned.sqlite").write_bytes(b"not a database, whatever its name says" * 99)
    with pytest.warns(
        RuntimeWarning, match="narrows tune --clear. Until then, calls use the choices that narrows"
    ) as seen:
        assert [k.origin for k in _known.known(0)] == ["shipped"]
    assert len(seen) == 1


def test_a_folder_that_may_not_be_looked_into_is_said_and_calls_go_on_with_the_shipped_choices(device, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", forbidden)
    with pytest.raises(ResourceError, match="tuned.sqlite cannot be looked at: Permission denied"):
        _store.read(Path("closed/tuned.sqlite"), SILICON)


def test_a_value_that_changed_its_type_is_refused_with_its_row(path):
    _store.write(path, SILICON, [entry(), entry(tokens=128)])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE choices SET entry = CAST(entry AS BLOB) WHERE signature LIKE '%T=128 %'")
    found = _store.read(path, SILICON)
    assert [e.tokens for e in found.entries] == [64]
    assert "T=128" in found.faults[0]
