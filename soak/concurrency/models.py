"""Processes that compress with one work folder, and save to one place: whole folders only, no sum made twice."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soak.concurrency.children import stand_in, together
from soak.concurrency.measure import process_faults
from soak.crashes.case import called, files, folder_state, temporary
from soak.crashes.models import DENSE, NEW, OLD, OUT, WORK, asked, make_base

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soak.concurrency.children import Tell, Work

COMPRESSORS, SAVERS, SAVES, LOADS = 3, 4, 6, 8
BATCH, SAVED, LOADED, REFUSED = "batch ", "saved ", "loaded", "refused "


def base_made(place: Path) -> Path:
    """Return a folder with a tiny dense model, its texts, and two compressions of it, each made by one process."""
    base = place / "base"
    base.mkdir()
    (ended,) = together([lambda _: make_base(base)])
    if ended.status:
        raise RuntimeError(f"the tiny models could not be made: {ended.told}")
    return base


def compressed_together(seed: str, base: Path) -> list[str]:
    """Return what went wrong where 3 processes compressed one model with one work folder into one place.

    Args:
        seed: of when they start.
        base: from `base_made`.
    """
    draw = random.Random(seed)  # noqa: S311 (a draw, not a secret)
    with tempfile.TemporaryDirectory(prefix="soak-compress-") as folder:
        home = Path(folder).resolve() / "home"
        home.mkdir()
        delays = [draw.uniform(0.0, 0.5) for _ in range(COMPRESSORS)]
        works: list[Work] = [partial(_compress, base, home, delay) for delay in delays]
        ended = together(works)
        batches = Counter(line for one in ended for line in one.told if line.startswith(BATCH))
        twice = [f"read {count} times: {one}" for one, count in batches.items() if count > 1]
        return [*process_faults(ended), *twice, *_folder_faults(base, home, (NEW,))]


def saved_together(seed: str, base: Path, *, can_swap: bool = True) -> list[str]:
    """Return what went wrong where 4 processes saved two models, 6 times each, to one place, while 2 loaded from it.

    Args:
        seed: of which of the models each of them saves.
        base: from `base_made`.
        can_swap: False: as on a file system that cannot swap two names, where a folder is replaced in two steps.
    """
    draw = random.Random(seed)  # noqa: S311 (a draw, not a secret)
    with tempfile.TemporaryDirectory(prefix="soak-save-") as folder:
        home = Path(folder).resolve() / "home"
        home.mkdir()
        shutil.copytree(base / OLD, home / OUT)
        orders = [[draw.choice((OLD, NEW)) for _ in range(SAVES)] for _ in range(SAVERS)]
        works: list[Work] = [partial(_save, base, home, order, can_swap) for order in orders]
        ended = together([*works, *[partial(_load, base, home)] * 2])
        loads = sum(line == LOADED for one in ended for line in one.told)
        faults = [] if loads else ["no load of the folder came through"]
        return [*process_faults(ended), *faults, *_folder_faults(base, home, (OLD, NEW))]


def _compress(base: Path, home: Path, delay: float, tell: Tell) -> None:
    import time

    from narrows.models import _calibrate_run

    read = _calibrate_run.Run._read  # noqa: SLF001

    def told(run: Any, batch: Any, sums: Any) -> None:
        tell(f"{BATCH}{batch.indices[0]}")
        read(run, batch, sums)

    stand_in(_calibrate_run.Run, _read=told)
    time.sleep(delay)
    answer = called(asked(base, home / OUT, home / WORK))
    assert answer.code == 0, answer.said


def _save(base: Path, home: Path, order: Sequence[str], can_swap: bool, tell: Tell) -> None:
    from narrows import load, save
    from narrows._files import _folder
    from narrows.models._check_inputs import open_tokenizer
    from narrows.models._manifest import read_manifest

    if not can_swap:
        stand_in(_folder, _exchange=lambda *_: False)
    models = {name: load(base / name) for name in set(order)}
    for name in order:
        manifest = read_manifest(base / name)
        tokenizer = open_tokenizer(None, base / DENSE)
        save(
            models[name],
            home / OUT,
            plan=manifest.plan,
            certificate=manifest.certificate,
            source=str(base / DENSE),
            tokenizer=tokenizer,
        )
        tell(f"{SAVED}{name}")


def _load(base: Path, home: Path, tell: Tell) -> None:
    """Load from the place again and again: one of the two models comes, or it is refused by name."""
    from narrows import load
    from narrows.errors import FileError

    known = {_digest(load(base / name)) for name in (OLD, NEW)}
    for _ in range(LOADS):
        try:
            found = _digest(load(home / OUT))
        except FileError as fault:  # replaced between two of its files
            tell(f"{REFUSED}{fault}")
            continue
        assert found in known, "a mixture of two models was loaded"
        tell(LOADED)


def _digest(model: Any) -> str:
    from narrows._files import sha256_tensor

    return " ".join(f"{name} {sha256_tensor(tensor)}" for name, tensor in sorted(model.state_dict().items()))


def _folder_faults(base: Path, home: Path, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the folder at the end: it must be one that a process alone writes, and nothing else."""
    faults = [f"left over: {one}" for one in temporary(home)]
    if folder_state(home / OUT) not in {folder_state(base / name) for name in names}:
        faults.append(f"{OUT} is none of the folders that one process writes: {sorted(files(home / OUT))}")
    return faults
