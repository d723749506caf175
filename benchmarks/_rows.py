"""From raced times to rows, ratios and judgements: pure functions of what was recorded.

A row is a dictionary as it stands in the JSON, so that a recorded file can be judged again.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from narrows._stats import Ratio, doubts, median, paired_ratio, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from _race import Racer
    from narrows._cost import Cost
    from narrows._values import Ceilings

Row = dict[str, Any]
MAX_AUTOTUNE = "max-autotune"


def row_of(racer: Racer, **where: object) -> Row:
    """Return a racer's row; `where` names the point (tokens, mode, ...) and stands first."""
    samples, limit = racer.samples_ns, racer.limit_ns
    row: Row = {
        **where,
        "variant": racer.variant,
        "rank": racer.rank,
        "status": racer.status,
        "reason": racer.reason,
        "chosen": racer.chosen,
        "worst": racer.worst,
        "calls": racer.count,
        "time_us": None,
        "limit_us": None if limit is None else limit / 1e3,
    }
    if samples:
        row["time_us"] = median(samples) / 1e3
        row["spread"] = spread(samples)
        row["share"] = None if limit is None else limit / median(samples)
        row["doubts"] = list(doubts(samples, limit_ns=limit))
    row["samples_ns"] = [round(sample, 1) for sample in samples]
    return row


def ratio(slow: Row, fast: Row) -> Ratio | None:
    """Return time of `slow` over time of `fast`, paired by round; None where either has no time."""
    if slow["time_us"] is None or fast["time_us"] is None:
        return None
    return paired_ratio(slow["samples_ns"], fast["samples_ns"])


def as_json(found: Ratio | None) -> Row | None:
    """Return a ratio with its verdict, for JSON."""
    return None if found is None else {**asdict(found), "verdict": found.verdict}


def of(rows: Iterable[Row], **wanted: object) -> list[Row]:
    """Return the rows whose fields have these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def fastest(rows: Iterable[Row]) -> Row | None:
    """Return the row with the smallest median; None where none has a time."""
    return min((row for row in rows if row["time_us"] is not None), key=lambda row: row["time_us"], default=None)


def reached(found: Row | None, target: float) -> str:
    """Return "yes" or "no" by the median ratio, "not measured" without one; "about" where 99 % do not tell."""
    if found is None:
        return "not measured"
    if found["low"] < target < found["high"]:
        return "about"
    return "yes" if found["value"] >= target else "no"


def never_slower(found: Row | None) -> str:
    """Return "yes" unless a ratio says slower beyond a tie."""
    if found is None:
        return "not measured"
    return "no" if found["verdict"] == "slower" else "yes"


def geometric_mean(ratios: Sequence[Row]) -> Row | None:
    """Return the geometric mean of ratios; its ends are those of the ratios, so it covers more than 99 %."""
    if not ratios:
        return None
    return {
        **{
            name: math.exp(sum(math.log(each[name]) for each in ratios) / len(ratios))
            for name in ("value", "low", "high")
        },
        "num_points": len(ratios),
    }


def limit_of(cost: Cost, launches: int, ceilings: Ceilings, *, hot_bytes: int, mode: str = "graph") -> float:
    """Return the least nanoseconds of a call whose x and result are cold and whose weights may be in the cache.

    Args:
        hot_bytes: of the bytes read, those that are read again by every call; they are held to the cache's
            ceiling where they fit it.
    """
    from dataclasses import replace

    from narrows._cost import limit_ns

    if hot_bytes <= ceilings.last_level_cache_bytes:
        counted = hot_bytes * ceilings.read_bytes_per_s / ceilings.hot_read_bytes_per_s
        cost = replace(cost, bytes_read=round(cost.bytes_read - hot_bytes + counted))
    return limit_ns(
        cost, launches, ceilings, mode="eager" if mode == "eager" else "graph", cache="cold", is_asynchronous=True
    )


def contenders(path: str | Path, tokens: int, device_name: str) -> tuple[str, ...]:
    """Return the dense forms to race at a length: the two fastest recorded ones, max-autotune only if it won.

    Empty where the file or the length is not there, or where it was recorded on another device.
    """
    if not Path(path).exists():
        return ()
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    if record["machine"]["name"] != device_name:
        return ()
    rows = sorted(of(record["rows"], tokens=tokens, status="ok"), key=lambda row: row["time_us"])
    names = [row["variant"] for row in rows]
    plain = [name for name in names if not name.endswith(MAX_AUTOTUNE)]
    return tuple(names[:1] + [name for name in plain if name not in names[:1]])[:2]


def show(ratio_row: Row | None) -> str:
    """Return a ratio as "3.21x [3.18, 3.25]"."""
    if ratio_row is None:
        return "-"
    return f"{ratio_row['value']:.2f}x [{ratio_row['low']:.2f}, {ratio_row['high']:.2f}]"


def table(headings: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Return a plain table, columns as wide as their widest cell."""
    cells = [[str(cell) for cell in line] for line in (headings, *lines)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )
