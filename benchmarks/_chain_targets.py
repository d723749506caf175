"""What the bilinear chain must reach on one H200, and what a record's rows say of it: pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from _rows import Row, as_json, fastest, never_slower, of, ratio, reached, show, table

if TYPE_CHECKING:
    from collections.abc import Sequence

# Speedup over dense in a graph at the best rank from 64 on: tokens -> (must, aim).
TARGETS = {
    64: (3.0, 4.0), 128: (3.2, 4.5), 256: (3.8, 5.0), 512: (4.5, 6.0),
    1024: (6.5, 8.0), 2048: (9.0, 11.0), 4096: (13.0, 17.0), 8192: (16.0, 20.0),
}  # fmt: skip
LEAST_RANK = 64
OVER_TWO_RANKS, OVER_TWO_MUST, OVER_TWO_RANK = (128, 256), 1.5, 128
EAGER_MUST, SHORT = 1.3, 512
AUTO, TWO = "auto", "two"
CUBLAS = ("two", "three")


def judge(rows: Sequence[Row]) -> list[Row]:
    """Return one judgement a length."""
    return [judge_length(of(rows, tokens=tokens)) for tokens in sorted({row["tokens"] for row in rows})]


def judge_length(rows: Sequence[Row]) -> Row:
    """Return what the rows of one length say of the targets."""
    tokens = rows[0]["tokens"]
    graph, must_aim = of(rows, mode="graph"), TARGETS.get(tokens)
    dense = fastest(of(graph, rank=None))
    best = fastest(row for row in graph if row["rank"] is not None and row["rank"] >= LEAST_RANK)
    auto = fastest(row for row in of(graph, variant=AUTO) if row["rank"] >= LEAST_RANK)
    judged: Row = {
        "tokens": tokens,
        "dense": dense and dense["variant"],
        "dense_us": dense and dense["time_us"],
        "must": must_aim and must_aim[0],
        "aim": must_aim and must_aim[1],
        "best": _side(dense, best, must_aim),
        "auto": _side(dense, auto, must_aim),
        "over_two": [_over_two(graph, rank, tokens) for rank in OVER_TWO_RANKS if of(graph, rank=rank)],
        "eager": _eager(of(rows, mode="eager"), tokens),
    }
    within = [row for row in of(rows, mode="memory") if row["status"] == "ok"]
    judged["memory"] = "not measured" if not within else "yes" if all(row["is_within"] for row in within) else "no"
    return judged


def _side(dense: Row | None, thin: Row | None, must_aim: tuple[float, float] | None) -> Row | None:
    """Return a thin row's speedup over dense and whether it is what it must be."""
    if dense is None or thin is None:
        return None
    speedup = as_json(ratio(dense, thin))
    must, aim = must_aim or (None, None)
    return {
        **{name: thin[name] for name in ("variant", "rank", "time_us", "limit_us", "share")},
        "speedup": speedup,
        "reached_must": None if must is None else reached(speedup, must),
        "reached_aim": None if aim is None else reached(speedup, aim),
    }


def _over_two(graph: Sequence[Row], rank: int, tokens: int) -> Row:
    """Return the own implementation's and auto's gain over two cuBLAS matmuls at one rank."""
    rows = of(graph, rank=rank)
    two = fastest(of(rows, variant=TWO))
    own = fastest(row for row in rows if row["variant"] not in {*CUBLAS, AUTO})
    auto = fastest(of(rows, variant=AUTO))
    found = {name: as_json(ratio(two, row)) if two and row else None for name, row in (("own", own), ("auto", auto))}
    must = OVER_TWO_MUST if rank == OVER_TWO_RANK and tokens <= SHORT else None
    return {
        "rank": rank,
        "own_variant": own and own["variant"],
        **found,
        "auto_never_slower": never_slower(found["auto"]),
        "must": must,
        "reached_must": None if must is None else reached(found["auto"], must),
    }


def _eager(rows: Sequence[Row], tokens: int) -> Row:
    """Return auto's speedup over the best dense form when the host launches."""
    dense, auto = fastest(of(rows, rank=None)), fastest(of(rows, variant=AUTO))
    speedup = as_json(ratio(dense, auto)) if dense and auto else None
    must = EAGER_MUST if tokens <= SHORT else None
    return {
        "dense_us": dense and dense["time_us"],
        "auto_us": auto and auto["time_us"],
        "rank": auto and auto["rank"],
        "speedup": speedup,
        "never_slower": never_slower(speedup),
        "must": must,
        "reached_must": None if must is None else reached(speedup, must),
    }


def report(rows: Sequence[Row]) -> str:
    """Return the tables that a person reads."""
    judged = judge(rows)
    return "\n\n".join((_speedups(judged), _over_two_table(judged), _eager_table(judged), _rows_table(rows)))


def _speedups(judged: Sequence[Row]) -> str:
    headings = ("tokens", "dense us", "by", "best us", "rank", "impl", "share", "speedup [99 %]", "must", "", "aim", "",
                "auto", "must")  # fmt: skip
    lines = []
    for each in judged:
        best, auto = each["best"], each["auto"]
        lines.append((
            each["tokens"], _us(each["dense_us"]), each["dense"] or "-",
            *((_us(best["time_us"]), best["rank"], best["variant"], _percent(best["share"]), show(best["speedup"]))
              if best else ("-",) * 5),
            each["must"] or "-", (best and best["reached_must"]) or "-",
            each["aim"] or "-", (best and best["reached_aim"]) or "-",
            show(auto and auto["speedup"]), (auto and auto["reached_must"]) or "-",
        ))  # fmt: skip
    return "In a graph, cold: over the best dense form\n" + table(headings, lines)


def _over_two_table(judged: Sequence[Row]) -> str:
    lines = [
        (
            each["tokens"], over["rank"], over["own_variant"] or "-", show(over["own"]), show(over["auto"]),
            over["auto_never_slower"], over["must"] or "-", over["reached_must"] or "-",
        )
        for each in judged
        for over in each["over_two"]
    ]  # fmt: skip
    headings = ("tokens", "rank", "own", "own over two [99 %]", "auto over two [99 %]", "never slower", "must", "")
    return "In a graph, cold: over two cuBLAS matmuls\n" + table(headings, lines)


def _eager_table(judged: Sequence[Row]) -> str:
    lines = [
        (
            each["tokens"], eager["rank"] or "-", _us(eager["dense_us"]), _us(eager["auto_us"]), show(eager["speedup"]),
            eager["never_slower"], eager["must"] or "-", eager["reached_must"] or "-", each["memory"],
        )
        for each in judged
        for eager in (each["eager"],)
    ]  # fmt: skip
    headings = (
        "tokens",
        "rank",
        "dense us",
        "auto us",
        "speedup [99 %]",
        "never slower",
        "must",
        "",
        "memory as stated",
    )
    return "Launched by the host, cold\n" + table(headings, lines)


def _rows_table(rows: Sequence[Row]) -> str:
    """Return every row with its time, or why it has none."""
    lines = [
        (
            row["tokens"], row["mode"], row["variant"], row["rank"] or "-", _us(row["time_us"]),
            f"{row['spread']:.1%}" if "spread" in row else "-", _percent(row.get("share")),
            row["reason"] or "; ".join(row.get("doubts", ())) or "-",
        )
        for row in rows
        if row["mode"] != "memory"
    ]  # fmt: skip
    lines += [
        (row["tokens"], "memory", row["variant"], row["rank"], "-", "-", "-", row["reason"] or _over(row))
        for row in of(rows, mode="memory")
        if not row.get("is_within")
    ]
    return table(("tokens", "mode", "impl", "rank", "us", "spread", "share", "note"), lines)


def _over(row: Row) -> str:
    allowed = row["output"] + row["middle"] + row["workspace"]
    return (
        f"takes {row['requested']} bytes, {row['requested'] - allowed} more than its result, projections and workspace"
    )


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
