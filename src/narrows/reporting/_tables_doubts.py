"""What speaks against the rows, counted: the short form of the table of doubts."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from narrows._stats import DOUBTS, compare_rows
from narrows.reporting import _cells as cells
from narrows.reporting._table import Column, Table

if TYPE_CHECKING:
    from narrows._values import Report, Row

Found = dict[str, list["Row"]]


def _by_kind(report: Report) -> Found:
    """Group rows by what is said of them: a doubt of their own samples, or why they have none."""
    found: Found = defaultdict(list)
    for compared in compare_rows(report):
        for kind in DOUBTS:
            if any(doubt.startswith(kind) for doubt in compared.doubts):
                found[kind].append(compared.row)
    for row in report.rows:
        if row.status != "ok":
            found[f"{row.status}: {row.reason}"].append(row)
    return found


def doubts_summary(report: Report) -> Table:
    """Return one line for each kind of doubt: how many rows have it, and at which lengths."""
    columns = (cells.left("doubt", "Doubt"), Column("num_rows", "Rows"), cells.left("tokens", "At lengths"))
    found = _by_kind(report)
    rows = tuple(
        (
            cells.word(kind),
            cells.number(len(doubtful)),
            cells.word(", ".join(map(str, sorted({row.tokens for row in doubtful})))),
        )
        for kind, doubtful in found.items()
    )
    note = f"Of {len(report.rows)} rows; each row's own doubts: --md or --html." if rows else ""
    return Table("doubts_summary", "Doubts", columns, rows, note or "No row has a doubt, and every row was measured.")
