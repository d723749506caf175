"""Repeat one case: python -m soak.files.repeat SUBJECT INDEX [--seed N] [--file NAME]."""

from __future__ import annotations

import argparse
import sys

from soak.files import part


def main() -> int:
    """Run one case and say how it ended."""
    parser = argparse.ArgumentParser(prog="python -m soak.files.repeat", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("subject")
    parser.add_argument("index", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", default="", help="a bit of this file, INDEX counts bits")
    given = parser.parse_args()
    with part.opened(given.seed) as run:
        if run is None:
            sys.exit("not shown: Linux is needed")
        from soak.files.run import Case

        (outcome,) = run.outcomes([Case(given.subject, given.index, given.file)], 1)
    print(f"{outcome.status}: {outcome.said}\n{outcome.text}")
    return int(outcome.status == "fault")


if __name__ == "__main__":
    sys.exit(main())
