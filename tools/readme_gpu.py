"""The part of README.md that says what one GPU reached: tables and what was missed, from benchmarks/results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from narrows import Report
from narrows.reporting._text import time_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Record = dict[str, Any]

CHAIN, LINEAR, ATTENTION, ERRORS = "chain-h200", "linear-h200", "attention-h200", "bench-h200"
DECODE_KEYS = 16384
HELD = " (which the interval holds)"
UNRECORDED = "No run on a GPU is recorded in this checkout: `make gpu` measures one."


def section(folder: Path) -> str:
    """Return the text made from the records in this folder, or how to make some where one is missing."""
    if not all((folder / f"{name}.json").exists() for name in (CHAIN, LINEAR, ATTENTION, ERRORS)):
        return UNRECORDED
    chain, lin, decode = (json.loads((folder / f"{name}.json").read_bytes()) for name in (CHAIN, LINEAR, ATTENTION))
    report = Report.from_json((folder / f"{ERRORS}.json").read_bytes(), source=ERRORS)
    return "\n\n".join((scores(chain, report), linear(lin, report), attention(decode), missed(chain)))


def scores(record: Record, report: Report) -> str:
    """Return caption and table of S = (X A)(X B)^T: time, speedup and limit of `auto`, with the error beside."""
    names = [weight.name for weight in report.experiment.weights]
    head = ["tokens", "dense", "narrows, `auto`", "speedup (99 % interval)", "of the limit", "two cuBLAS matmuls"]
    head += ["speedup, eager", *(f"error, {name} weight" for name in names)]
    rows = [score_cells(record, each, report, names) for each in record["judged"]]
    return (
        f"**Scores.** S = X Wᵀ Xᵀ against (X Aᵀ)(X Bᵀ)ᵀ, W {record['width']} x {record['width']}, bfloat16, x and S "
        f"cold, in a CUDA graph (*eager*: launched by the host), on {where(record)}. Dense is the fastest of its "
        f"orders and layouts in that run; two cuBLAS matmuls have the same rank and share the projection. Timed on "
        "random factors; the error is that of the same rank and length in the default experiment on such a GPU "
        f"(upper 95 % end; 1 is everything). Held back by: {record['conditions']['GPU held back by']}. Data: "
        f"{links(CHAIN, ERRORS)}.\n\n{table(head, rows)}"
    )


def score_cells(record: Record, judged: Record, report: Report, names: Sequence[str]) -> list[str]:
    """Return the texts of one length."""
    auto, tokens = judged["auto"], judged["tokens"]
    two = row_of(record, tokens=tokens, mode="graph", variant="two", rank=auto["rank"])
    chosen = row_of(record, tokens=tokens, mode="graph", variant="auto", rank=auto["rank"])["chosen"].split()[0]
    errors = [report.error(tokens, auto["rank"], name) for name in names]
    return [
        str(tokens),
        us(judged["dense_us"]),
        f"rank {auto['rank']}, {us(auto['time_us'])} ({chosen})",
        ratio(auto["speedup"]),
        f"{auto['share']:.0%}",
        us(two["time_us"]),
        ratio(judged["eager"]["speedup"]),
        *("not measured" if error is None else f"{error.upper95:.2g}" for error in errors),
    ]


def linear(record: Record, report: Report) -> str:
    """Return what `auto` gains over two cuBLAS matmuls for y = (x A) B, and where it gains nothing."""
    mean = next(each for each in record["judged"]["means"] if each["side"] == "auto")
    points = [each for each in record["judged"]["points"] if each["factors"] == mean["factors"]]
    named = [each for each in points if each["rank"] in mean["ranks"] and each["tokens"] <= mean["tokens_up_to"]]
    values = [each["auto"]["value"] for each in named]
    ties = [at(each) for each in named if each["auto"]["verdict"] != "faster"]
    slower = [at(each) for each in points if each["auto_over_dense"]["verdict"] == "slower"]
    outs = " and ".join(str(out) for out in sorted({each["out_features"] for each in points}))
    ranks = " and ".join(str(rank) for rank in mean["ranks"])
    longer = max(each["auto"]["value"] for each in points if each["tokens"] > mean["tokens_up_to"])
    return (
        f"**Linear.** y = (x Aᵀ) B, {record['in_features']} -> {outs}, {mean['over_two']['num_points']} points: "
        f"{min(each['tokens'] for each in named)} to {mean['tokens_up_to']} tokens, ranks {ranks}, factors warm, in a "
        f"graph. `auto` over two cuBLAS matmuls: {ratio(mean['over_two'])} in the geometric mean, {min(values):.2f}x "
        f"to {max(values):.2f}x by point. No gain: {'; '.join(ties) or 'nowhere'}; and at most {longer:.2f}x beyond "
        f"{mean['tokens_up_to']} tokens. Slower than the dense layer: {'; '.join(slower) or 'nowhere'}. What such "
        f"ranks lose of a {report.experiment.in_features} x {report.experiment.out_features} weight: "
        f"{losses(report, mean['ranks'])}. Only this shape is in the record: the run was cut off before "
        f"4096 -> 14336. Data: {links(LINEAR, ERRORS)}."
    )


def losses(report: Report, ranks: Sequence[int]) -> str:
    """Return how much of each made weight is lost at these ranks."""
    lost = ((weight.name, [weight.factor_errors[rank] for rank in ranks]) for weight in report.weights)
    return ", ".join(f"{name} {' and '.join(f'{error:.0%}' for error in errors)}" for name, errors in lost)


def attention(record: Record) -> str:
    """Return the table of decode steps at one length, narrow caches only."""
    asked = [each for each in record["judged"] if each["keys"] == DECODE_KEYS and each["target"] is not None]
    first = next(row for row in record["rows"] if row["kind"] == "decode")
    rows = [
        [f"{each['rank']}, {each['width']}", us(each["time_us"]), ratio(each["over_sdpa"]), f"{each['share']:.0%}"]
        for each in asked
    ]
    head = ["widths of key, value", "own kernel", "speedup over torch's SDPA (99 % interval)", "of the read ceiling"]
    return (
        f"**Decode attention.** One query, batch {first['batch']}, {first['heads']} query and {first['groups']} key "
        f"heads, {DECODE_KEYS} keys, bfloat16, cold, in a graph; SDPA reads the same cache and computes the same, so "
        "this speedup costs no accuracy (what a narrow cache loses is the error of its rank). A share above 100 % "
        "means that the probe of the ceiling, a `torch.sum`, reads slower than the kernel. The sizes are the fastest "
        f"of a sweep in that run, and those that the formula gives now. Data: {links(ATTENTION)}.\n\n"
        + table(head, rows)
    )


def missed(record: Record) -> str:
    """Return what the chain was to reach and did not, or not beyond doubt."""
    judged = record["judged"]
    lines = [
        *missed_speedups(judged),
        *missed_over_two(judged),
        *missed_eager(judged),
        *missed_aims(judged),
        *slower_than_by_hand(record),
    ]
    return "**Not reached.**\n\n" + "\n".join(f"- {line}" for line in lines or ["Nothing: every target was met."])


def missed_speedups(judged: Sequence[Record]) -> list[str]:
    """Return a line for each length whose speedup over dense is below its target, or cannot be told from it."""
    lines = []
    for each in judged:
        best, auto = each["best"], each["auto"]
        if best["reached_must"] != "yes":
            by = f"`{best['variant']}` (`auto` {auto['speedup']['value']:.2f}x)"
            lines.append(f"{each['tokens']} tokens: {ratio(best['speedup'])} by {by}; {target(best, each)}.")
        elif auto["reached_must"] != "yes":
            lines.append(f"{each['tokens']} tokens: {ratio(auto['speedup'])} by `auto`; {target(auto, each)}.")
    return lines


def target(found: Record, judged: Record) -> str:
    """Return the target, and whether the interval holds it."""
    return f"the target was {judged['must']:g}x" + (HELD if found["reached_must"] == "about" else "")


def missed_over_two(judged: Sequence[Record]) -> list[str]:
    """Return a line for each gain over two cuBLAS matmuls below its target, or not told from it."""
    return [
        f"Rank {over['rank']} at {each['tokens']} tokens: {ratio(over['auto'])} over two cuBLAS matmuls; "
        f"{target(over, over)}."
        for each in judged
        for over in each["over_two"]
        if over["reached_must"] in {"no", "about"}
    ]


def missed_eager(judged: Sequence[Record]) -> list[str]:
    """Return, in one line, the lengths whose target in eager mode was not met."""
    found = [each for each in judged if each["eager"]["reached_must"] in {"no", "about"}]
    if not found:
        return []
    texts = (
        f"{each['eager']['speedup']['value']:.2f}x at {each['tokens']} tokens"
        + (HELD if each["eager"]["reached_must"] == "about" else "")
        for each in found
    )
    return [f"Eager, over dense: {', '.join(texts)}; the target was {found[0]['eager']['must']:g}x."]


def missed_aims(judged: Sequence[Record]) -> list[str]:
    """Return, in one line, the lengths whose higher target was not met."""
    found = [each for each in judged if each["best"]["reached_aim"] != "yes"]
    aims = ", ".join(f"{each['aim']:g}x" for each in found)
    lengths = ", ".join(str(each["tokens"]) for each in found)
    return [f"The higher aims: {aims} at {lengths} tokens."] if found else []


def slower_than_by_hand(record: Record) -> list[str]:
    """Return, in one line, where an eager `auto` takes longer than two matmuls called directly."""
    texts = []
    for each in record["judged"]:
        eager = each["eager"]
        two = row_of(record, tokens=each["tokens"], mode="eager", variant="two", rank=eager["rank"])
        if eager["auto_us"] > 1.02 * two["time_us"]:
            texts.append(f"{us(eager['auto_us'])} against {us(two['time_us'])} at {each['tokens']} tokens")
    if not texts:
        return []
    told = "Where `auto` has no launches to replay, an eager call takes longer than the two matmuls called directly"
    return [f"{told}: {', '.join(texts)}."]


def row_of(record: Record, **wanted: object) -> Record:
    """Return the one row with these values."""
    (row,) = (row for row in record["rows"] if all(row[name] == value for name, value in wanted.items()))
    return row


def where(record: Record) -> str:
    """Return the machine in a few words, and when."""
    machine = record["machine"]
    return (
        f"{machine['name']} (one GPU, torch {machine['software']['torch']}, Triton {machine['software']['triton']}), "
        f"{record['created'][:10]}, narrows {record['version']}"
    )


def at(point: Record) -> str:
    """Return which point this is."""
    return f"{point['tokens']} tokens at rank {point['rank']}"


def us(microseconds: float) -> str:
    """Return a time as the other tables write it."""
    return time_text(microseconds * 1e3)


def ratio(found: Record) -> str:
    """Return a ratio with its interval."""
    return f"{found['value']:.2f}x ({found['low']:.2f} to {found['high']:.2f})"


def links(*names: str) -> str:
    """Return links to records."""
    return ", ".join(f"[{name}.json](benchmarks/results/{name}.json)" for name in names)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, aligned right."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---:"] * len(head), *rows))
