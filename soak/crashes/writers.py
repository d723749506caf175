"""Every way in which narrows writes to be kept, alone, so that the order of its system calls can be read."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soak.crashes.case import called, tests_module
from soak.crashes.child import KEPT, WROTE, Answer, run
from soak.crashes.order import unforced

if TYPE_CHECKING:
    from collections.abc import Callable

    from soak.crashes.child import Tell

    Writer = Callable[[Path, Path, Tell], None]

REPORT = "report.json"  # in the base


def text(base: Path, home: Path, tell: Tell) -> None:
    """Write a record twice: `-o` of measure, choose and check, `tune --export`, times of layers."""
    del base
    from narrows._files import write_text_atomic

    for content in ("first", "second"):
        write_text_atomic(home / "record.json", content)
        tell(f"{WROTE}record.json, {content}")


def data(base: Path, home: Path, tell: Tell) -> None:
    """Write bytes: `spectrum --npz`."""
    del base
    from narrows._files import write_bytes_atomic

    write_bytes_atomic(home / "spectrum.npz", bytes(10_000))
    tell(f"{WROTE}spectrum.npz")


def page(base: Path, home: Path, tell: Tell) -> None:
    """Write a report's page: `show --html`."""
    answer = called(["show", str(base / REPORT), "--html", str(home / "page.html")])
    assert answer.code == 0, answer.said
    tell(f"{WROTE}page.html")


def folder(base: Path, home: Path, tell: Tell) -> None:
    """Write a folder twice: a compressed model's."""
    del base
    from narrows._files._folder import whole_folder

    for content in ("first", "second"):
        with whole_folder(home / "out") as made:
            (made / "deep").mkdir()
            for name in ("a", "deep/b"):
                (made / name).write_text(content)
        tell(f"{WROTE}out, {content}")


def measurements(base: Path, home: Path, tell: Tell) -> None:
    """Keep samples and facts in a store whose folder is not there yet."""
    del base
    from narrows.bench._store import Store

    with Store(home / "new" / "deep" / "store.sqlite") as store:
        store.put_fact("key", "check", {"status": "ok"})
        tell(f"{KEPT}a fact")
        for number in range(3):
            store.add_sample("key", number, 1.0, 1)
            tell(f"{KEPT}sample {number}")


def choices(base: Path, home: Path, tell: Tell) -> None:
    """Keep two choices in a store whose folder is not there yet."""
    del base
    from narrows.kernels import tuned

    records = tests_module("kernels.tuned.records")
    for tokens in (64, 128):
        tuned.write(home / "new" / "tuned.sqlite", records.SILICON, [records.entry(tokens=tokens)])
        tell(f"{KEPT}choice {tokens}")


def sums(base: Path, home: Path, tell: Tell) -> None:
    """Keep two states of calibration in a folder that is not there yet."""
    del base
    import torch

    from narrows.models._moments_store import MomentsStore

    with MomentsStore(home / "new" / "sums", {"text": "t"}) as store:
        for batches in (1, 2):
            store.save(0, batches, {"layer": torch.ones(8, 8)}, {"tokens": batches})
            tell(f"{KEPT}state {batches}")


WRITERS: dict[str, Writer] = {
    "records": text,
    "arrays": data,
    "pages": page,
    "folders": folder,
    "measurements": measurements,
    "choices": choices,
    "calibration": sums,
}


def order_faults(writer: Writer, base: Path) -> tuple[str, ...]:
    """Return what a writer called kept before it was on the disk; needs strace.

    Raises:
        RuntimeError: it did not run to its end.
    """
    with tempfile.TemporaryDirectory(prefix="soak-order-") as place:
        home = Path(place).resolve() / "home"
        home.mkdir()
        ended = run(partial(_worked, writer, base, home), trace=[], log=home.parent / "log")
        if ended.answer is None or ended.answer.code:
            raise RuntimeError(f"a writer did not run: {ended.answer}")
        return unforced(ended.calls, str(home))


def _worked(writer: Writer, base: Path, home: Path, tell: Tell) -> Answer:
    writer(base, home, tell)
    return Answer(0, "")
