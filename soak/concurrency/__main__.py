"""Repeat one round: python -m soak.concurrency WHAT NUMBER [--seed S]."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from soak.concurrency import models
from soak.concurrency.children import pool
from soak.concurrency.part import ROUNDS, one_round


def main() -> int:
    """Repeat one round, print what went wrong, and return 1 if something did."""
    parser = argparse.ArgumentParser(prog="python -m soak.concurrency", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=tuple(ROUNDS))
    parser.add_argument("number", type=int)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-concurrency-") as folder, pool(Path(folder), 1) as executor:
        needs_base = ROUNDS[asked.what].needs_base
        base = executor.submit(models.base_made, Path(folder)).result() if needs_base else Path(os.devnull)
        found = executor.submit(one_round, asked.what, base, f"{asked.seed} {asked.what} {asked.number}").result()
    print(*(found or ["nothing went wrong"]), sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
