"""Stores that narrows keeps: measurements, tuned choices, calibration's moments."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import torch

from narrows._files._digest import sha256_tensor
from narrows._values._json import seal_of
from narrows.bench import _store as measurements
from narrows.bench._store_rows import put_row
from narrows.errors import FileError
from narrows.kernels.tuned import _store as tuned
from narrows.models._moments_index import INDEX
from narrows.models._moments_store import MomentsStore
from soak.files.change import Change
from soak.files.json import VALUES, changed_json
from soak.files.records import SILICON, entry
from soak.files.sqlite import row_bytes
from soak.files.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

STORE, TUNED = "measurements.sqlite", "tuned.sqlite"
WHEN = "2026-01-02T03:04:05Z"  # of every sample: the same bytes in every run
SETTINGS = {"recipe": 1, "seed": 0, "text": "t" * 64}
KEYS = ("a" * 32, "b" * 32)


def subjects() -> list[Subject]:
    """Return the kinds of stores."""
    store, other_store = (_files(_fill_measurements, seed) for seed in (1, 2))
    known, other_known = (_files(_fill_tuned, seed) for seed in (1, 2))
    sums, other_sums = (_files(_fill_moments, seed) for seed in (1, 2))
    parts = {name: (_payload(name, data),) for name, data in sums.items()}
    return [
        _database(STORE, store, other_store, read_measurements, forged_measurements),
        _database(TUNED, known, other_known, read_tuned, forged_tuned),
        Subject(
            name="moments",
            share=0.06,
            files=sums,
            others=other_sums,
            read=read_moments,
            is_sealed=True,
            is_folder=True,
            forge=forged_moments,
            bits=parts,
        ),
    ]


def _database(
    name: str,
    files: dict[str, bytes],
    others: dict[str, bytes],
    read: Callable[[Path], str],
    forge: Callable[[Mapping[str, bytes], Random], Change],
) -> Subject:
    return Subject(
        name=name,
        share=0.08,
        files=files,
        others=others,
        read=read,
        is_sealed=True,
        forge=forge,
        bits={name: row_bytes(files[name])},
    )


def _files(fill: Callable[[Path, int], None], seed: int) -> dict[str, bytes]:
    """Return the files that are filled into a folder, locks left out."""
    with tempfile.TemporaryDirectory(prefix="narrows-soak-") as made:
        fill(Path(made), seed)
        found = [one for one in sorted(Path(made).rglob("*")) if one.is_file() and one.suffix != ".lock"]
        return {str(one.relative_to(made)): one.read_bytes() for one in found}


def _payload(name: str, data: bytes) -> range:
    start = 8 + int.from_bytes(data[:8], "little") if name.endswith(".safetensors") else 0
    return range(start, len(data))


def _fill_measurements(folder: Path, seed: int) -> None:
    with (
        mock.patch.object(measurements, "now", return_value=WHEN),
        measurements.Store(folder / STORE) as store,
    ):
        for key in KEYS:
            store.put_fact(key, "check", {"status": "ok", "worst": 0.25 * seed, "launches": 2})
            for round_ in range(4):
                store.add_sample(key, round_, 1000.5 + seed + round_, 3)


def read_measurements(folder: Path) -> str:
    """Return what a store of measurements holds; a row that it refuses is raised with its name."""
    is_new = _is_new(folder / STORE)
    with measurements.Store(folder / STORE) as store:
        if is_new:
            raise FileError(f"{folder / STORE} was not there, or empty: it is a new store.")
        if store.damaged:
            raise FileError(f"{folder / STORE}: {store.damaged[0]}")
        held = [(store.fact(key), store.samples(key)) for key in KEYS]
        return f"{held} {store.last_sample_time(list(KEYS))}"


def _is_new(path: Path) -> bool:
    """Return whether there is nothing at a path, so that a store is made there: nothing tells that one was."""
    return not path.exists() or (path.is_file() and not path.stat().st_size)


def forged_measurements(files: Mapping[str, bytes], rng: Random) -> Change:
    """Put something else into a row and make its digest anew."""
    name, value = rng.choice(tuple(VALUES.items()))
    text = rng.choice((value, f'{{"status": {value}}}', "not JSON", ""))

    def edit(db: sqlite3.Connection) -> None:
        put_row(db, "facts", KEYS[0], "check", text, replace=True)

    return Change(f"a fact is {name}", {STORE: _edited(files[STORE], edit)}, may_differ=True)


def _fill_tuned(folder: Path, seed: int) -> None:
    tuned.write(folder / TUNED, SILICON, [entry(64, seed), entry(128, seed)])


def read_tuned(folder: Path) -> str:
    """Return the choices of a store; a row that it refuses is raised with its name."""
    found = tuned.read(folder / TUNED, SILICON)
    if found.faults:
        raise FileError(f"{folder / TUNED}: {found.faults[0]}")
    if _is_new(folder / TUNED):
        raise FileError(f"{folder / TUNED} is not there, or empty: there are no choices.")
    return repr(found.entries)


def forged_tuned(files: Mapping[str, bytes], rng: Random) -> Change:
    """Put another entry into a row and make its digest anew."""

    def edit(db: sqlite3.Connection) -> None:
        silicon, signature, text = db.execute("SELECT silicon, signature, entry FROM choices").fetchone()
        new = changed_json(text.encode(), rng)[1].decode("utf-8", "replace")
        digest = tuned._digest(silicon, signature, new)  # noqa: SLF001 (a forger knows how)
        db.execute("UPDATE choices SET entry = ?, digest = ? WHERE signature = ?", (new, digest, signature))

    return Change("an entry, with its digest", {TUNED: _edited(files[TUNED], edit)}, may_differ=True)


def _edited(data: bytes, edit: Callable[[sqlite3.Connection], None]) -> bytes:
    """Return a database with an edit done."""
    with tempfile.TemporaryDirectory(prefix="narrows-soak-") as made:
        path = Path(made) / "db"
        path.write_bytes(data)
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode=DELETE")
            with db:
                edit(db)
        return path.read_bytes()


def _fill_moments(folder: Path, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    made = {f"inputs/layer.{i}/0": torch.randn(4, 4, generator=draw, dtype=torch.float64) for i in range(2)}
    with MomentsStore(folder, SETTINGS) as store:
        store.save(0, 3, made, {"layer.0": 96, "layer.1": 96, "": 96})


def read_moments(folder: Path) -> str:
    """Return the sums that a folder keeps."""
    with MomentsStore(folder, SETTINGS) as store:
        counts = store.counts(0)
        if counts is None:
            raise FileError(f"{folder} keeps no sums: there is no {INDEX}.")
        return f"{counts} {[(name, sha256_tensor(store.tensor(0, name))) for name in store.names(0)]}"


def forged_moments(files: Mapping[str, bytes], rng: Random) -> Change:
    """Change the index and seal it anew."""
    fields = json.loads(files[INDEX])
    del fields["sha256"]
    said, text = changed_json(json.dumps(fields).encode(), rng)
    try:
        made = json.dumps({**json.loads(text), "sha256": seal_of(json.loads(text))}).encode()
    except (ValueError, TypeError, RecursionError):  # nothing that could be sealed
        made = text
    return Change(f"index, sealed again: {said}", {INDEX: made}, may_differ=True)
