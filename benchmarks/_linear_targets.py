"""What the linear chain must reach on one GPU, and what a record's rows say of it: pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from _rows import Row, as_json, fastest, geometric_mean, never_slower, of, ratio, reached, show, table

if TYPE_CHECKING:
    from collections.abc import Sequence

AUTO, TWO = "auto", "two"
MEAN_MUST, MEAN_RANKS, MEAN_UP_TO = 1.3, (64, 256), 1024
POINT = ("out_features", "tokens", "factors")


def judge(rows: Sequence[Row]) -> Row:
    """Return auto's and the own implementation's gain over two cuBLAS matmuls at every point, and their means."""
    points = [each for key in _keys(rows) for each in _ranks_of(of(rows, **dict(zip(POINT, key, strict=True))))]
    return {"points": points, "means": [_mean(points, side) for side in ("auto", "own")]}


def _keys(rows: Sequence[Row]) -> list[tuple[object, ...]]:
    return list(dict.fromkeys(tuple(row[name] for name in POINT) for row in rows))


def _ranks_of(rows: Sequence[Row]) -> list[Row]:
    """Return one judgement a rank of one shape, length and state of the factors."""
    dense = fastest(of(rows, rank=None))
    ranks = sorted({row["rank"] for row in rows if row["rank"] is not None})
    return [_judged(of(rows, rank=rank), dense) for rank in ranks]


def _judged(rows: Sequence[Row], dense: Row | None) -> Row:
    two, auto = fastest(of(rows, variant=TWO)), fastest(of(rows, variant=AUTO))
    own = fastest(row for row in rows if row["variant"] not in {TWO, AUTO})
    over = {name: as_json(ratio(two, row)) if two and row else None for name, row in (("auto", auto), ("own", own))}
    limits = [row["limit_us"] for row in rows if row["limit_us"] is not None]
    return {
        **{name: rows[0][name] for name in (*POINT, "rank")},
        "dense_us": dense and dense["time_us"],
        "two_us": two and two["time_us"],
        "own_variant": own and own["variant"],
        "own_us": own and own["time_us"],
        "auto_us": auto and auto["time_us"],
        "auto_share": auto and auto["share"],
        **over,
        "auto_never_slower": never_slower(over["auto"]),
        "auto_over_dense": as_json(ratio(dense, auto)) if dense and auto else None,
        # Below 1 no thin chain can win: a choice must say dense.
        "limit_over_dense": dense["limit_us"] / min(limits) if dense and limits else None,
    }


def _mean(points: Sequence[Row], side: str) -> Row:
    """Return the geometric mean over two of the points that the target names, factors hot."""
    named = [p for p in of(points, factors="hot") if p["rank"] in MEAN_RANKS and p["tokens"] <= MEAN_UP_TO]
    mean = geometric_mean([point[side] for point in named if point[side] is not None])
    return {
        "side": side,
        "factors": "hot",
        "ranks": MEAN_RANKS,
        "tokens_up_to": MEAN_UP_TO,
        "missing": sum(point[side] is None for point in named),
        "over_two": mean,
        "must": MEAN_MUST,
        "reached_must": reached(mean, MEAN_MUST),
    }


def report(rows: Sequence[Row]) -> str:
    """Return the tables that a person reads."""
    judged = judge(rows)
    headings = (
        "E", "tokens", "factors", "rank", "dense us", "two us", "own us", "auto us", "share", "own over two [99 %]",
        "auto over two [99 %]", "never slower", "auto over dense [99 %]", "limit over dense",
    )  # fmt: skip
    lines = [
        (
            *(point[name] for name in (*POINT, "rank")),
            *(_us(point[name]) for name in ("dense_us", "two_us", "own_us", "auto_us")),
            "-" if point["auto_share"] is None else f"{point['auto_share']:.0%}",
            show(point["own"]),
            show(point["auto"]),
            point["auto_never_slower"],
            show(point["auto_over_dense"]),
            "-" if point["limit_over_dense"] is None else f"{point['limit_over_dense']:.2f}",
        )
        for point in judged["points"]
    ]
    means = [
        f"{mean['side']} over two, geometric mean of up to {MEAN_UP_TO} tokens at ranks 64 and 256, hot factors: "
        f"{show(mean['over_two'])}; must {MEAN_MUST}: {mean['reached_must']}"
        + (f" ({mean['missing']} points have no time)" if mean["missing"] else "")
        for mean in judged["means"]
    ]
    without = [
        f"{row['out_features']}, {row['tokens']} tokens, {row['factors']}, {row['variant']}, rank {row['rank']}: "
        f"{row['status']}: {row['reason']}"
        for row in rows
        if row["status"] != "ok"
    ]
    return "\n".join([table(headings, lines), "", *means, *without])


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
