"""Repeat one sweep: python -m soak.resources NUMBER [--seed S]."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from soak.concurrency.children import pool
from soak.resources.part import sweep_seed
from soak.resources.rows import swept


def main() -> int:
    """Repeat one sweep, print what went wrong, and return 1 if something did."""
    parser = argparse.ArgumentParser(prog="python -m soak.resources", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("number", type=int)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-resources-") as folder, pool(Path(folder), 1) as executor:
        found = executor.submit(swept, sweep_seed(asked.seed, asked.number)).result()
    print(*(found or ["nothing went wrong"]), sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
