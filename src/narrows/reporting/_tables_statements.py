"""The origin's statements as a table, and how many of them hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.reporting import _cells as cells
from narrows.reporting._table import Column, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows.reporting._statements import Judged

NOTE = (
    "Judged on the origin's own chains: three thin matmuls against (X W) X^T, where both were measured. Of a "
    "contradiction the first half is judged. A rank that ties with the fastest counts as best."
)


def statements_table(judged: Sequence[Judged]) -> Table:
    """Return every statement with its verdict and figures."""
    columns = (
        Column("number", "No."),
        cells.left("verdict", "Verdict"),
        cells.left("quote", "Statement"),
        cells.left("figures", "Figures"),
        Column("kind", "Kind", "left", is_detail=True),
    )
    rows = tuple(
        (cells.number(j.number), cells.word(j.verdict), cells.word(j.quote), cells.word(j.figures), cells.word(j.kind))
        for j in judged
    )
    return Table("statements", "Every statement of the origin, judged by this data", columns, rows, NOTE)


def verdicts_text(judged: Sequence[Judged]) -> str:
    """Return how many statements hold, are refuted, or cannot be judged."""
    count = {verdict: sum(j.verdict == verdict for j in judged) for verdict in ("holds", "refuted", "cannot tell")}
    return (
        f"Of the origin's {len(judged)} statements {count['holds']} hold on this machine, {count['refuted']} are "
        f"refuted, and of {count['cannot tell']} this data cannot tell."
    )
