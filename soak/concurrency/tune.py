"""Processes that tune into one cache, and that time layers into one file: every row is made once, and stays."""

from __future__ import annotations

import random
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soak.concurrency.children import stand_in, together
from soak.concurrency.measure import process_faults
from soak.crashes.case import tests_module

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from soak.concurrency.children import Ended, Tell, Work

PROCESSES, READERS = 8, 2
CALLS, LOOKS = 10, 150
WRITES = 25  # of each process
LAYERS = ((32, 32), (32, 48), (48, 32), (64, 32))  # D, E
MADE, READ = "made ", "read "


def tuned_together(seed: str) -> list[str]:
    """Return what went wrong where 8 processes tuned overlapping lists of calls into one cache, while 2 read it."""
    draw = random.Random(seed)  # noqa: S311 (a draw, not a secret)
    with tempfile.TemporaryDirectory(prefix="soak-tune-") as folder:
        path = Path(folder) / "tuned.sqlite"
        tokens = [64 * (1 + number) for number in range(CALLS)]
        lists = [draw.sample(tokens, draw.randint(CALLS // 2, CALLS)) for _ in range(PROCESSES)]
        works: list[Work] = [partial(_tune, path, one) for one in lists]
        ended = together([*works, *[partial(_read, path)] * READERS])
        wanted = {_signature(one) for asked in lists for one in asked}
        return [*process_faults(ended), *_cache_faults(path, ended, wanted)]


def chosen_together(seed: str) -> list[str]:
    """Return what went wrong where 8 processes each kept 25 choices of their own in one cache, while 2 read it."""
    del seed
    with tempfile.TemporaryDirectory(prefix="soak-choose-") as folder:
        path = Path(folder) / "tuned.sqlite"
        lists = [range(1 + number * WRITES, 1 + (number + 1) * WRITES) for number in range(PROCESSES)]
        works: list[Work] = [partial(_keep, path, one) for one in lists]
        ended = together([*works, *[partial(_read, path)] * READERS])
        wanted = {_signature(one) for asked in lists for one in asked}
        return [*process_faults(ended), *_cache_faults(path, ended, wanted)]


def timed_together(seed: str) -> list[str]:
    """Return what went wrong where 8 processes timed overlapping lists of layers into one file."""
    from narrows.bench import LayerTimes

    draw = random.Random(seed)  # noqa: S311 (a draw, not a secret)
    with tempfile.TemporaryDirectory(prefix="soak-layers-") as folder:
        path = Path(folder) / "layer-times.json"
        lists = [draw.sample(LAYERS, draw.randint(1, len(LAYERS))) for _ in range(PROCESSES)]
        works: list[Work] = [partial(_time, path, one) for one in lists]
        ended = together(works)
        told = Counter(line.removeprefix(MADE) for one in ended for line in one.told)
        there = {f"{one.in_features} {one.out_features}" for one in LayerTimes.from_json(path.read_bytes()).times}
        wanted = {f"{D} {E}" for one in lists for D, E in one}
        return [
            *process_faults(ended),
            *(f"lost: the times of {one}" for one in sorted(wanted - there)),
            *(f"timed {count} times: {one}" for one, count in told.items() if count > 1),
        ]


def _signature(tokens: int) -> str:
    return str(tests_module("kernels.tuned.records").signature(tokens=tokens))


def _tune(path: Path, tokens: Sequence[int], tell: Tell) -> None:
    import torch

    from narrows import kernels
    from narrows.bench import _tune_run
    from narrows.kernels import tuned

    records, device = tests_module("kernels.tuned.records"), tests_module("bench.tuning")

    def case(where: Any, _: object, *, cache_bytes: int) -> Any:
        assert cache_bytes > 0
        tell(f"{MADE}{where}")
        return device.FakeCase(where)

    kernel = records.FakeKernel()
    stand_in(_tune_run, Case=case)
    stand_in(kernels, kernels_for=lambda _: [kernel])
    stand_in(tuned, failure=lambda *_: "")
    tuner = _tune_run.Tuner(
        device=torch.device("cpu"),
        silicon=records.SILICON,
        software=records.SOFTWARE,
        path=path,
        seconds=3600.0,
        progress=lambda _: None,
    )
    found = tuner.run([records.signature(tokens=one) for one in tokens])
    assert len(found) == len(tokens), f"{len(found)} choices of {len(tokens)}"


def _keep(path: Path, tokens: Sequence[int], tell: Tell) -> None:
    from narrows.kernels import tuned

    records = tests_module("kernels.tuned.records")
    for one in tokens:
        tuned.write(path, records.SILICON, [records.entry(tokens=one)])
        tell(f"{MADE}{_signature(one)}")


def _read(path: Path, tell: Tell) -> None:
    """Read the choices again and again, as every process that computes does; each must be whole, and stay."""
    from narrows.kernels import tuned

    silicon, seen = tests_module("kernels.tuned.records").SILICON, 0
    for _ in range(LOOKS):
        found = tuned.read(path, silicon)
        if found.faults or len(found.entries) < seen:
            raise AssertionError(f"{found.faults[:2]}, {len(found.entries)} entries after {seen}")
        seen = len(found.entries)
    tell(f"{READ}{seen}")


def _time(path: Path, shapes: Sequence[tuple[int, int]], tell: Tell) -> None:
    from narrows.bench import LayerTime, _layers, layer_times

    def measured(groups: Sequence[tuple[int, int, int]], *_: object, **__: object) -> Iterator[Any]:
        for D, E, rows in groups:
            tell(f"{MADE}{D} {E}")
            yield (D, E, rows), (LayerTime(D, E, "dense", None, rows, 1000.0),)

    stand_in(_layers, measured=measured)
    found = layer_times(shapes, rows=[4], store=path)
    assert len(found.times) == len(shapes), f"{len(found.times)} times of {len(shapes)}"


def _cache_faults(path: Path, ended: Sequence[Ended], wanted: set[str]) -> Iterator[str]:
    """Yield choices that are lost, damaged, or were made twice."""
    from narrows.kernels import tuned

    told = Counter(line.removeprefix(MADE) for one in ended for line in one.told if line.startswith(MADE))
    contents = tuned.read(path, tests_module("kernels.tuned.records").SILICON)
    with closing(sqlite3.connect(path)) as db:
        checks = [*db.execute("PRAGMA integrity_check").fetchall(), *db.execute("PRAGMA foreign_key_check").fetchall()]
    yield from contents.faults
    yield from (f"lost: {one}" for one in sorted(wanted - {str(one.signature(0)) for one in contents.entries}))
    yield from (f"made {count} times: {one}" for one, count in told.items() if count > 1)
    if checks != [("ok",)]:
        yield f"SQLite finds damage: {checks[:3]}"
