"""Run parts of the long run: one line for each figure, and a record.

    python -m soak                      every part but mutants, as `make soak`
    python -m soak files --scale 0.01   one part, a hundredth of it

The record holds the last run of every part: parts that are not run again stay in it as they are. Exit status: 1 when a
figure failed; what this machine cannot show says "not shown" and fails nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from soak._figure import Figure

PARTS = ("right", "files", "crashes", "concurrency", "resources", "noise", "supply")
ASKED_FOR = ("mutants",)  # a run of its own: `make mutants`


def main() -> int:
    """Run, print, record."""
    arguments = parse()
    began, found = time.perf_counter(), []
    for part in arguments.parts:
        for figure in figures(part, arguments):
            print(figure, flush=True)
            found.append(figure)
            save(arguments.output, arguments, found, time.perf_counter() - began)
    counts = {status: sum(one.status == status for one in found) for status in ("ok", "failed", "not shown")}
    print(", ".join(f"{number} {status}" for status, number in counts.items()))
    return int(counts["failed"] > 0)


def figures(part: str, arguments: argparse.Namespace) -> Iterator[Figure]:
    """Yield a part's figures."""
    module = importlib.import_module(f"soak.{part}")
    yield from module.figures(arguments.seed, arguments.scale, arguments.jobs)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join((*PARTS, *ASKED_FOR))}")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default 0)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the long run (default 1)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--output", type=Path, default=Path("build/soak.json"), help="default build/soak.json")
    found = parser.parse_args(argv)
    found.parts = found.parts or list(PARTS)
    unknown = set(found.parts) - {*PARTS, *ASKED_FOR}
    if unknown:
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}; there are {', '.join((*PARTS, *ASKED_FOR))}")
    return found


def save(path: Path, arguments: argparse.Namespace, found: Sequence[Figure], seconds: float) -> None:
    """Put a run into the record in the place of earlier ones of its parts."""
    from narrows._files import write_text_atomic
    from narrows._machine import machine

    run = {
        "commit": commit(),
        "machine": asdict(machine("cpu")),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": arguments.seed,
        "scale": arguments.scale,
        "jobs": arguments.jobs,
        "seconds": round(seconds, 1),
        "figures": [asdict(one) for one in found],
    }
    runs = [*without(kept(path), {one.part for one in found}), run]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, json.dumps({"runs": runs}, indent=1) + "\n")


def kept(path: Path) -> list[dict[str, Any]]:
    """Return the runs of a record; none where there is no record."""
    return list(json.loads(path.read_text(encoding="utf-8"))["runs"]) if path.exists() else []


def without(runs: Sequence[dict[str, Any]], parts: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield the runs without the figures of some parts, where others are left."""
    for run in runs:
        figures = [one for one in run["figures"] if one["part"] not in parts]
        if figures:
            yield {**run, "figures": figures}


def commit() -> str:
    """Return the commit that is checked out, with + where files were changed; "unknown" outside of git."""
    words = ["git", "describe", "--always", "--dirty=+", "--exclude", "*"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
