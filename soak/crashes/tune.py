"""`narrows tune` on a device that is not there: its timers have set times; search, race and store are the real ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from soak.crashes.case import ABSENT, sqlite_damage, telling, tests_module, text_digest, tried
from soak.crashes.child import KEPT, WROTE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from soak.crashes.child import Answer, Tell

STORE, EXPORT = "tuned.sqlite", "choices.json"
PREVIOUS = "an earlier export\n"
TOKENS = (64, 128, 256, 512, 1024, 2048)


class Tune:
    """Six calls, kept one by one, and then an export of all of them."""

    name = "tune"

    def prepare(self, base: Path, home: Path) -> None:
        """Put an earlier export at the place of the new one."""
        del base
        (home / EXPORT).write_text(PREVIOUS)

    def ready(self, base: Path) -> None:
        """Do nothing."""

    def work(self, base: Path, home: Path, tell: Tell) -> Answer:
        """Tune, and export."""
        del base
        return tried(lambda: _tuned_and_exported(home, tell))

    def state(self, home: Path) -> dict[str, str]:
        """Return what stands in the export."""
        path = home / EXPORT
        return {EXPORT: _told(path.read_text()) if path.exists() else ABSENT}

    def kept(self, home: Path) -> frozenset[str]:
        """Return the choices in the store that are whole."""
        contents = self._contents(home)
        return frozenset(_line(None, None, [entry]) for entry in contents.entries)

    def damage(self, home: Path) -> list[str]:
        """Return which choices are not whole, and what SQLite finds wrong."""
        return [*self._contents(home).faults, *sqlite_damage(home / STORE)]

    def _contents(self, home: Path) -> Any:
        from narrows.kernels import tuned

        return tuned.read(home / STORE, tests_module("kernels.tuned.records").SILICON)


def _tuned_and_exported(home: Path, tell: Tell) -> None:
    import torch

    from narrows import _files
    from narrows.bench._tune_run import Tuner
    from narrows.kernels import tuned

    records = tests_module("kernels.tuned.records")
    _stand_in(records)
    telling(tuned, "write", tell, _line)
    tuner = Tuner(
        device=torch.device("cpu"),
        silicon=records.SILICON,
        software=records.SOFTWARE,
        path=home / STORE,
        seconds=3600.0,
        progress=lambda _: None,
    )
    tuner.run([records.signature(tokens=tokens) for tokens in TOKENS])
    entries = tuned.read(home / STORE, records.SILICON).entries
    _files.write_text_atomic(home / EXPORT, tuned.Tuning(records.SILICON, entries, "0").to_json())
    tell(f"{WROTE}{EXPORT}")


def _stand_in(records: Any) -> None:
    """Put a device with set times in the place of a GPU."""
    from narrows import kernels
    from narrows.bench import _tune_run
    from narrows.kernels import tuned

    device = tests_module("bench.tuning")
    kernel = records.FakeKernel()
    vars(_tune_run).update(Case=lambda where, *_, **__: device.FakeCase(where))
    vars(kernels).update(kernels_for=lambda _: [kernel])
    vars(tuned).update(failure=lambda *_: "")


def _line(_: object, __: object, entries: Sequence[Any]) -> str:
    return "\n".join(f"{KEPT}{entry.signature(0)}" for entry in entries)


def _told(text: str) -> str:
    """Return what an export says, without the times of day."""
    from narrows.errors import FileError
    from narrows.kernels.tuned import Tuning

    if text == PREVIOUS:
        return "the previous one"
    try:
        found = Tuning.from_json(text)
    except FileError as fault:
        return f"no export: {fault}"
    entries = tuple(replace(entry, measured="") for entry in found.entries)
    return text_digest(replace(found, entries=entries).to_json().encode())
