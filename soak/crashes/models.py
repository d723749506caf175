"""`narrows compress` and `narrows.save` on a Llama of one block and 32 features."""

from __future__ import annotations

import json
import shutil
from functools import cache
from typing import TYPE_CHECKING, Any

from soak.crashes.case import called, folder_state, telling, tests_module, tried
from soak.crashes.child import KEPT, WROTE

if TYPE_CHECKING:
    from pathlib import Path

    from soak.crashes.child import Answer, Tell

OUT, WORK = "out", "work"
DENSE, TEXTS, OLD, NEW = "dense", "texts.jsonl", "old", "new"
SHAPE = ("--context", "32", "--calibration-tokens", "2048", "--layer", "re:.*(q_proj|gate_proj|down_proj)")


def asked(base: Path, out: Path, work: Path, keep: float = 0.8) -> tuple[str, ...]:
    """Return the command line that compresses the tiny model."""
    where = (str(base / DENSE), str(out), "--texts", str(base / TEXTS), "--work", str(work))
    return ("compress", *where, "--budget", f"keep={keep}", *SHAPE)


def make_base(base: Path) -> None:
    """Write the dense model, its texts, and what an earlier and this compression make of it."""
    tiny = tests_module("tiny_models")
    tiny.folder(tiny.llama(num_hidden_layers=1), base / DENSE)
    lines = [json.dumps({"text": text}) for text in tiny.texts(40, 60)]
    (base / TEXTS).write_text("\n".join(lines), encoding="utf-8")
    for name, keep in ((OLD, 0.9), (NEW, 0.8)):
        answer = called(asked(base, base / name, base / f"work-{name}", keep))
        if answer.code:
            raise RuntimeError(f"the tiny model could not be compressed: {answer.said}")


def put_old(base: Path, home: Path) -> None:
    """Put what an earlier compression wrote at the place of the new folder."""
    shutil.copytree(base / OLD, home / OUT)


class Compress:
    """From the dense model's folder to another one; the sums of calibration are kept after every batch."""

    name = "compress"

    def prepare(self, base: Path, home: Path) -> None:
        """Put an earlier compression at the place of the new one."""
        put_old(base, home)

    def ready(self, base: Path) -> None:
        """Do nothing: a run begins with its folders."""

    def work(self, base: Path, home: Path, tell: Tell) -> Answer:
        """Compress."""
        from narrows.models import _calibrate_run, _compress_folder
        from narrows.models._moments_store import MomentsStore

        _calibrate_run.SAVE_SECONDS = 0.0
        _calibrate_run.SAVE_SHARE = float("inf")
        telling(MomentsStore, "save", tell, _moments_line)
        telling(_compress_folder, "save", tell, lambda *_, **__: f"{WROTE}{OUT}")
        return called(asked(base, home / OUT, home / WORK))

    def state(self, home: Path) -> dict[str, str]:
        """Return what stands in the folder, and in the sums once all text was read."""
        return {OUT: folder_state(home / OUT)}

    def kept(self, home: Path) -> frozenset[str]:
        """Return the states of the sums that are there, or were followed by a later one."""
        done = {number: int(one["batches"]) for number, one in _passes(home).items()}
        return frozenset(f"{KEPT}moments {number} {i}" for number, last in done.items() for i in range(1, last + 1))

    def damage(self, home: Path) -> list[str]:
        """Return which files the index names that are not there."""
        named = {file for one in _passes(home).values() for file in one["files"].values()}
        return [f"moments.json names {file}" for file in sorted(named) if not (home / WORK / file).exists()]


class Save:
    """A compressed model in memory, over the folder of an earlier one."""

    name = "save"

    def prepare(self, base: Path, home: Path) -> None:
        """Put an earlier compression at the place of the new one."""
        put_old(base, home)

    def ready(self, base: Path) -> None:
        """Load the model."""
        model_of(base)

    def work(self, base: Path, home: Path, tell: Tell) -> Answer:
        """Save."""
        from narrows import save

        model, tokenizer, manifest = model_of(base)

        def written() -> None:
            save(
                model,
                home / OUT,
                plan=manifest.plan,
                certificate=manifest.certificate,
                source=str(base / DENSE),
                tokenizer=tokenizer,
            )
            tell(f"{WROTE}{OUT}")

        return tried(written)

    def state(self, home: Path) -> dict[str, str]:
        """Return what stands in the folder."""
        return {OUT: folder_state(home / OUT)}

    def kept(self, home: Path) -> frozenset[str]:
        """Return nothing: a save keeps nothing but its folder."""
        del home
        return frozenset()

    def damage(self, home: Path) -> list[str]:
        """Return nothing."""
        del home
        return []


@cache
def model_of(base: Path) -> tuple[Any, Any, Any]:
    """Return the compressed model with its tokenizer and its manifest."""
    from narrows import load
    from narrows.models._check_inputs import open_tokenizer
    from narrows.models._manifest import read_manifest

    return load(base / NEW), open_tokenizer(None, base / DENSE), read_manifest(base / NEW)


def _passes(home: Path) -> dict[str, Any]:
    """Return what the index of the sums says; nothing where there is none."""
    index = home / WORK / "moments.json"
    return dict(json.loads(index.read_text())["passes"]) if index.exists() else {}


def _moments_line(_: object, number: int, batches: int, *__: object) -> str:
    return f"{KEPT}moments {number} {batches}"
