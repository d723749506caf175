"""Put the recorded long runs into docs/reliability.md: `python tools/reliability.py`, with --check to compare only."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from readme import between
from reference import write_or_check

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
RECORDS = ("soak-cpu", "mutants-cpu")
UNRECORDED = "No long run is recorded in this checkout: `make soak` makes one."


def page(text: str, folder: Path = ROOT / "benchmarks" / "results") -> str:
    """Return the page with its table made from the recorded runs in a folder."""
    paths = [folder / f"{name}.json" for name in RECORDS]
    runs = [run for path in paths if path.exists() for run in json.loads(path.read_bytes())["runs"]]
    return between(text, "soak", "\n\n".join(map(table, runs)) or UNRECORDED, maker="tools/reliability.py")


def table(run: dict[str, Any]) -> str:
    """Return caption and table of one run."""
    machine = run["machine"]
    caption = (
        f"{run['created'][:10]}, commit {run['commit']}, {machine['name']}, {run['jobs']} processes, seed "
        f"{run['seed']}, scale {run['scale']:g} (1 is the long form), {run['seconds'] / 60:.0f} minutes:"
    )
    lines = ["| | figure | asked | reached | tried |", "| --- | --- | --- | --- | ---: |"]
    lines += [
        f"| {one['status']} | {one['part']}: {cell(one['name'])} | {cell(one['asked'])} | {cell(one['reached'])} "
        f"| {one['count']:,} |"
        for one in run["figures"]
    ]
    return "\n".join([caption, "", *lines])


def cell(text: str) -> str:
    """Return a text as a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(write_or_check({PAGE: page(PAGE.read_text(encoding="utf-8"))}, sys.argv[1:]))
