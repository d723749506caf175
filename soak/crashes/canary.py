"""Writers and a case that do it wrong: the checks must say so. Only tests run them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from soak.crashes.child import KEPT, WROTE, Answer
from soak.crashes.cycle import CASES, Whole, killed_at_moment
from soak.crashes.writers import order_faults

if TYPE_CHECKING:
    from pathlib import Path

    from soak.crashes.child import Tell

BEFORE, AFTER = "old", "a new one"


def without_fsync(base: Path, home: Path, tell: Tell) -> None:
    """Write beside, and rename."""
    del base
    (home / ".a.tmp").write_text("x")
    (home / ".a.tmp").rename(home / "a")
    tell(f"{WROTE}a")


def fsync_after_the_rename(base: Path, home: Path, tell: Tell) -> None:
    """Force the file only once it has its name, and then the folder."""
    del base
    with (home / ".a.tmp").open("w") as file:
        file.write("x")
        file.flush()
        (home / ".a.tmp").rename(home / "a")
        os.fsync(file.fileno())
    _force(home)
    tell(f"{WROTE}a")


def without_the_folder(base: Path, home: Path, tell: Tell) -> None:
    """Force the file, but not its name."""
    del base
    with (home / ".a.tmp").open("w") as file:
        file.write("x")
        file.flush()
        os.fsync(file.fileno())
    (home / ".a.tmp").rename(home / "a")
    tell(f"{WROTE}a")


def in_place(base: Path, home: Path, tell: Tell) -> None:
    """Write under the final name; all is forced in the end."""
    del base
    (home / "deep").mkdir()
    (home / "deep" / "a").write_text("x")
    _force(home / "deep" / "a")
    _force(home / "deep")
    tell(f"{WROTE}deep/a")


def _force(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.close(file)


WRONG = {one.__name__: one for one in (without_fsync, fsync_after_the_rename, without_the_folder, in_place)}


class Torn:
    """Says that a line is kept before it is, and writes its final file in place, slowly."""

    name = "torn"

    def prepare(self, base: Path, home: Path) -> None:
        """Put an earlier file at the place of the new one."""
        del base
        (home / "final").write_text(BEFORE)

    def ready(self, base: Path) -> None:
        """Do nothing."""

    def work(self, base: Path, home: Path, tell: Tell) -> Answer:
        """Write a letter each 0.1 s."""
        del base
        tell(f"{KEPT}line")
        (home / f".{time.monotonic_ns()}.tmp").write_text("never removed")
        with (home / "final").open("w") as file:
            for letter in AFTER:
                file.write(letter)
                file.flush()
                time.sleep(0.1)
        (home / "store").write_text("line")
        return Answer(0, "")

    def state(self, home: Path) -> dict[str, str]:
        """Return the file's text."""
        return {"final": (home / "final").read_text()}

    def kept(self, home: Path) -> frozenset[str]:
        """Return the line, once it is there."""
        return frozenset({f"{KEPT}line"} if (home / "store").exists() else ())

    def damage(self, home: Path) -> list[str]:
        """Return nothing."""
        del home
        return []


def order_of(name: str, base: Path) -> tuple[str, ...]:
    """Return what the check of the order finds in a wrong writer."""
    return order_faults(WRONG[name], base)


def torn_kill(seed: str, base: Path) -> tuple[str, ...]:
    """Return what a cycle finds in the wrong case."""
    CASES["torn"] = Torn()
    ends = {"before": {"final": BEFORE}, "after": {"final": AFTER}}
    whole = Whole(**ends, files=frozenset({"final", "store"}), seconds=0.1 * len(AFTER), calls=(), unforced=())
    return killed_at_moment("torn", base, whole, seed).faults
