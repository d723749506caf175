"""Run mutants again: python -m soak.mutants NAME..."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from soak.mutants.kernels import planted
from soak.mutants.part import session, source_files
from soak.mutants.source import mutants


def main() -> int:
    """Run the mutants that are named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m soak.mutants", description="Run these mutants again.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="as a survivor's line gives it")
    names = parser.parse_args().names
    with session(1) as now:
        fresh = replace(now, record=None)
        found = fresh.sources([one for one in mutants(now.tree, source_files(now.tree)) if one.name in names])
        found += fresh.kernels([one for one in planted(now.tree) if one.mutant.name in names])
    for one in found:
        print(f"{one}\n    {one.tests} tests, {one.seconds:.1f} s: {one.by} {one.why}")
    return int(len(found) != len(names))


if __name__ == "__main__":
    sys.exit(main())
