"""The part of README.md that says what whole models lose and gain: from benchmarks/results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from narrows._stats import paired_ratio
from narrows._values._check import Check

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Record = dict[str, Any]

QUALITY, CHECKED, ASKED = "quality-h200", "smollm2-keep-0.9-h200", "smollm2-speed-h200"
SHOWN = (
    ("ours", "narrows"),
    ("ours-recovered", "narrows, then 100 s of recovery"),
    ("ours-low-rank", "narrows, low-rank factors alone"),
    ("lems-0.5", "two-sided factors, LEMS-style ranks"),
    ("two-sided", "two-sided factors, uniform"),
    ("svd-llm", "SVD-LLM, uniform"),
    ("plain", "plain SVD, uniform"),
)
KEEPS = (0.9, 0.8)
LARGEST = 1000.0  # a ratio of perplexities above it is no figure of use
UNRECORDED = "No whole model is recorded in this checkout."


def section(folder: Path) -> str:
    """Return the text made from the records in this folder, or that there are none."""
    paths = [folder / f"{name}.json" for name in (QUALITY, CHECKED, ASKED)]
    if not all(path.exists() for path in paths):
        return UNRECORDED
    quality = json.loads(paths[0].read_bytes())
    check = Check.from_json(paths[1].read_bytes(), source=CHECKED)
    return f"{losses(quality)}\n\n{speeds(check, json.loads(paths[2].read_bytes()))}"


def losses(record: Record) -> str:
    """Return caption and table of perplexities over dense's, by method and share of the numbers."""
    rows, settings = record["rows"], record["settings"]
    seeds = sorted({row["seed"] for row in rows})
    head = ["perplexity / dense", *(f"keep {keep}, seed {seed}" for keep in KEEPS for seed in seeds)]
    lines = [[name, *(ratio(rows, method, keep, seed) for keep in KEEPS for seed in seeds)] for method, name in SHOWN]
    dense = " and ".join(f"{row['texts']['wikipedia']['perplexity']:.2f}" for row in rows if row["method"] == "dense")
    return (
        f"**What is lost.** SmolLM2-135M, Wikipedia articles, the same {settings['calibration_tokens']} tokens of "
        f"calibration for every method, {settings['windows']} windows of {settings['context']} tokens of other "
        f"articles (dense: {dense}), 95 % intervals over articles, "
        "float32. Rows but the first three are other methods, written anew here; keep is the share of the numbers of "
        f"the blocks' linear layers. Data, with a second text and more methods: {link(QUALITY)}."
        f"\n\n{table(head, lines)}"
    )


def speeds(check: Check, asked: Record) -> str:
    """Return in sentences how fast one compressed model is, and the answer to a budget of speed."""
    parts = []
    for load in dict.fromkeys(one.workload for one in check.timings):
        timed = {one.side: one.samples_ns for one in check.timings if one.workload == load}
        found = paired_ratio(timed["dense"], timed["narrows"])
        parts.append(f"{found.value:.2f}x [{found.low:.2f}, {found.high:.2f}] at {load} ({found.verdict})")
    dense, own = check.side("dense"), check.side("narrows")
    assert dense.numbers is not None
    assert own.numbers is not None
    return (
        f"**What is gained.** The same model with {own.numbers / dense.numbers:.0%} of these numbers on "
        f"{check.device_name}, {check.dtype}, eager, against dense: {', '.join(parts)}. "
        f'Asked for `--budget speedup=1.2 --workload prefill:2048x1` there: "{asked["said"].removeprefix("error: ")}" '
        f"Data: {link(CHECKED)}, {link(ASKED)}, [all checks](docs/reports)."
    )


def ratio(rows: Sequence[Record], method: str, keep: float, seed: int) -> str:
    """Return one cell: "1.034 [1.029, 1.040]"; "-" where it was not measured."""
    found = [one for one in rows if (one["method"], one["keep"], one["seed"]) == (method, keep, seed)]
    if not found:
        return "-"
    value, low, high = (found[0]["texts"]["wikipedia"]["ratio"][end] for end in ("value", "low", "high"))
    return f"over {LARGEST:.0f}" if value > LARGEST else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def link(name: str) -> str:
    """Return a link to a record."""
    return f"[{name}.json](benchmarks/results/{name}.json)"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
