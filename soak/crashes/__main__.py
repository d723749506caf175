"""Repeat one cycle: python -m soak.crashes KIND VERB NUMBER [--seed S]."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from soak.crashes.cycle import CASES
from soak.crashes.pool import Pool

if TYPE_CHECKING:
    from soak.crashes.cycle import Cycle


def main() -> int:
    """Repeat one cycle, print what was wrong with it, and return 1 if something was."""
    parser = argparse.ArgumentParser(prog="python -m soak.crashes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=("call", "moment", "full", "disk"))
    parser.add_argument("verb", choices=tuple(CASES))
    parser.add_argument("number", type=int, help="of the kill; of the system call; bytes of room")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-crashes-") as place, Pool(Path(place), 1) as pool:
        one = _again(pool, asked.kind, asked.verb, asked.number, asked.seed)
    if one is None:
        print("not shown: a tmpfs cannot be mounted here")
        return 0
    print(one.where, *(one.faults or ["sound"]), sep="\n")
    return int(bool(one.faults))


def _again(pool: Pool, kind: str, verb: str, number: int, seed: int) -> Cycle | None:
    """Return one cycle; None: it cannot be shown here."""
    whole = pool.wholes()[verb]
    if kind == "full":
        return pool.full(verb, whole, [number])[0]
    if kind == "disk":
        return pool.disks(verb, whole, [number])[0]
    return pool.kills(kind, verb, whole, [f"{seed} {kind} {verb} {number}"])[0]


if __name__ == "__main__":
    sys.exit(main())
