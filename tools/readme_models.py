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
MET, EIGHT = "smollm2-speed-cpu", "smollm2-int8-check-cpu"
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
    paths = [folder / f"{name}.json" for name in (QUALITY, CHECKED, ASKED, MET, EIGHT)]
    if not all(path.exists() for path in paths):
        return UNRECORDED
    quality = json.loads(paths[0].read_bytes())
    check, eight = (Check.from_json(path.read_bytes(), source=path.stem) for path in (paths[1], paths[4]))
    asked, met = (json.loads(path.read_bytes()) for path in paths[2:4])
    return f"{losses(quality)}\n\n{speeds(check, asked)}\n\n{on_a_cpu(met, eight)}"


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


def on_a_cpu(met: Record, eight: Check) -> str:
    """Return in sentences what the same budget of speed costs on a CPU, and what int8 weights do there."""
    found = {row["figure"]: row["value"] for row in met["tables"]["summary"]["rows"]}
    speed = next(value for figure, value in found.items() if figure.startswith("speedup at "))
    ratios, shares = {}, {}
    for name in ("narrows", "int8"):
        side = eight.side(name)
        assert side.language is not None
        assert side.language.ratio is not None
        ratios[name] = side.language.ratio.value
        shares[name] = (side.kept_bytes or 0) / (eight.side("dense").kept_bytes or 1)
    wins = ratios["int8"] < ratios["narrows"] and shares["int8"] < shares["narrows"]
    return (
        f"On two cores of {met['machine']['name']} that budget is met at {speed:.2f}x with {found['numbers kept']:.0%} "
        f"of the numbers, and perplexity is then {found['perplexity / dense (95 %)']:.1f} times dense's. Beside int8 "
        f"weights there: perplexity {ratios['int8']:.3f} times dense's at {shares['int8']:.0%} of the layers' bytes, "
        f"against {ratios['narrows']:.3f} at {shares['narrows']:.0%}. "
        f"{'**For this model int8 is the better choice there.** ' if wins else ''}Data: {link(MET)}, {link(EIGHT)}."
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
