"""Remake the measured parts of README.md from recorded data: a table, what a GPU reached, a terminal transcript.

python tools/readme.py           write README.md
python tools/readme.py --check   exit 1 when README.md differs from what would be written
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from readme_gpu import section
from readme_models import section as models_section
from reference import write_or_check

from narrows import Report
from narrows._stats import compare_rows, fastest, median
from narrows.reporting._text import time_text

if TYPE_CHECKING:
    from narrows._stats import Comparison
    from narrows._values import Experiment, Machine

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RECORDED = Path("benchmarks/results/bench-cpu.json")
COMMANDS = (
    f"narrows show {RECORDED} --best",
    f"narrows choose {RECORDED} --tokens 1024 --error 0.01 --weight 'product of rank 128'",
)
UNRECORDED = f"""No run is recorded in this checkout. `make bench` measures one; then
`cp build/bench.json {RECORDED} && make docs` puts its table and its transcript here."""


def readme(text: str, root: Path = ROOT) -> str:
    """Return the README with its measured parts made from the recorded report under `root`."""
    path = root / RECORDED
    text = between(text, "h200", section(path.parent))
    text = between(text, "models", models_section(path.parent))
    if not path.exists():
        return between(between(text, "table", UNRECORDED), "transcript", UNRECORDED)
    report = Report.from_json(path.read_bytes(), source=str(RECORDED))
    return between(between(text, "table", table(report)), "transcript", transcript(root))


def between(text: str, name: str, content: str, *, maker: str = "tools/readme.py") -> str:
    """Return the text with what stands between the two markers of this name replaced."""
    begin, end = f"<!-- {name}: made by {maker} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"the page needs exactly one pair of markers {begin} ... {end}")
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def table(report: Report) -> str:
    """Return the caption and the table: the fastest rank of every length, with its error beside it."""
    names = [weight.name for weight in report.experiment.weights]
    head = ["tokens", "dense", "fastest thin", "speedup (99 % interval)", "of the limit"]
    head += [f"error, {name} weight" for name in names]
    best = [found for tokens in report.experiment.tokens if (found := fastest(at(report, tokens))) is not None]
    rows = [cells(report, comparison, names) for comparison in best]
    lines = [head, ["---:"] * len(head), *rows]
    return caption(report) + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def at(report: Report, tokens: int) -> list[Comparison]:
    """Return the comparisons of one length under the first mode and cache state."""
    asked = report.experiment
    wanted = (tokens, asked.modes[0], asked.caches[0])
    return [c for c in compare_rows(report) if (c.row.tokens, c.row.mode, c.row.cache) == wanted]


def cells(report: Report, comparison: Comparison, names: list[str]) -> list[str]:
    """Return the texts of one line."""
    row, speedup = comparison.row, comparison.speedup
    assert row.rank is not None
    note = "" if speedup.verdict == "faster" else f", {speedup.verdict}: stay dense"
    errors = [report.error(row.tokens, row.rank, name) for name in names]
    return [
        str(row.tokens),
        time_text(median(comparison.dense.samples_ns)),
        f"rank {row.rank}, {time_text(comparison.time_ns)}",
        f"{speedup.value:.2f}x ({speedup.low:.2f} to {speedup.high:.2f}){note}",
        "unknown" if comparison.share is None else f"{comparison.share:.0%}",
        *("not measured" if error is None else f"{error.upper95:.2g}" for error in errors),
    ]


def caption(report: Report) -> str:
    """Return what was measured, where and when."""
    asked, machine = report.experiment, report.machine
    return (
        f"{what(asked)}, {asked.dtype}, {asked.modes[0]}, {asked.caches[0]} cache, on {where(machine)}, "
        f"{report.created[:10]}, narrows {report.version}. Dense is the faster association; the error is the upper "
        "95 % end of the output's relative error (1 is everything)."
    )


def what(asked: Experiment) -> str:
    """Return the chains in the letters of the README."""
    chains = {"bilinear": "S = X Wᵀ Xᵀ against (X Aᵀ)(X Bᵀ)ᵀ", "linear": "y = X Wᵀ against (X Aᵀ) B"}
    return f"{chains[asked.kind]}, W {asked.out_features} x {asked.in_features}"


def where(machine: Machine) -> str:
    """Return the machine in a few words."""
    torch = machine.software.get("torch", "of unknown version")
    size = f"{machine.threads} threads" if machine.device == "cpu" else "one GPU"
    return f"{machine.name} ({size}, torch {torch})"


def transcript(root: Path) -> str:
    """Return the commands and what they print, as a code block."""
    shown = [f"$ {line}\n{output_of(line, root)}" for line in COMMANDS]
    return "```console\n" + "\n".join(shown) + "```"


def output_of(line: str, root: Path) -> str:
    """Return what a `narrows ...` line prints; 0 (yes) and 1 (no) are both answers."""
    command = [sys.executable, "-m", *shlex.split(line)]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if result.returncode not in {0, 1}:
        raise SystemExit(f"{line} failed with {result.returncode}: {result.stderr}")
    return "\n".join(part.rstrip() for part in result.stdout.strip().splitlines()) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check({README: readme(README.read_text(encoding="utf-8"))}, sys.argv[1:]))
