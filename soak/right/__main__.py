"""Repeat one share of an operation: python -m soak.right OPERATION [--seed S] [--examples N]."""

from __future__ import annotations

import argparse
import sys

from soak.right.part import A_SHARE, OPERATIONS, figure, search


def main() -> int:
    """Run one share of one operation and print it."""
    parser = argparse.ArgumentParser(prog="python -m soak.right", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("operation", choices=OPERATIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=A_SHARE)
    asked = parser.parse_args()
    found = figure(asked.operation, [search(asked.operation, asked.seed, asked.examples)], asked.examples)
    print(found)
    return int(found.status == "failed")


if __name__ == "__main__":
    sys.exit(main())
