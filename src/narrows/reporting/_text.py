"""Numbers as people read them, and tables and documents as plain text or Markdown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from narrows.reporting._table import Cell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from narrows._stats import Ratio
    from narrows.reporting._records import Document, Section
    from narrows.reporting._table import Column, Table

MISSING = Cell(None, "-")


def clean(text: str) -> str:
    """Return the text on one line without control characters (names may come from foreign files)."""
    return "".join(c if c.isprintable() else " " for c in text)


def time_text(time_ns: float) -> str:
    """Return a time with three significant figures: 850 ns, 12.3 us, 4.56 ms, 1.23 s."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if time_ns >= 0.9995 * size:
            return f"{_three(time_ns / size)} {unit}"
    return f"{_three(time_ns)} ns"


def bytes_text(num_bytes: float) -> str:
    """Return bytes in powers of 1024: 512 B, 1.50 KiB, 64.0 MiB."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if num_bytes >= size:
            return f"{_three(num_bytes / size)} {unit}"
    return f"{num_bytes:.0f} B"


def count_text(value: float) -> str:
    """Return a count with its prefix: 950, 12.3 k, 4.56 M, 274 G."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{_three(value / size)} {unit}"
    return f"{value:.0f}"


def error_text(error: float) -> str:
    """Return a relative error: 97.1%, 0.52%, 3.1e-07 (below 0.01 %)."""
    if error == 0:
        return "0"
    if error < 1e-4:
        return f"{error:.1e}"
    return f"{error:.2%}" if error < 0.1 else f"{error:.1%}"


def percent_text(fraction: float) -> str:
    """Return a round fraction, as a user gives one: 5 %, 0.1 %."""
    return f"{100 * fraction:g} %"


def ratio_text(ratio: Ratio) -> str:
    """Return a speedup; "~" marks a tie, "?" too few rounds: 2.41x, ~1.01x, ?3.20x."""
    mark = {"tie": "~", "unknown": "?"}.get(ratio.verdict, "")
    return f"{mark}{ratio.value:.2f}x"


def interval_text(ratio: Ratio) -> str:
    """Return a speedup with its 99 % interval: 2.41x [2.38, 2.44]."""
    return f"{ratio_text(ratio)} [{ratio.low:.2f}, {ratio.high:.2f}]"


def listed(values: Sequence[object]) -> str:
    """Return "64", "64 and 128", "64, 128 and 256"; "none" when there is nothing."""
    words = [str(value) for value in values]
    if not words:
        return "none"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _three(value: float) -> str:
    """Three significant figures, never in exponents for 0.001..9999."""
    rounded = float(f"{value:.3g}")
    digits = 2 - math.floor(math.log10(rounded)) if rounded > 0 else 2
    return f"{rounded:.{min(max(digits, 0), 3)}f}"


def table_text(table: Table) -> str:
    """Return a table as aligned plain text with its title and note."""
    grid = [[column.title for column in table.columns], *([clean(cell.text) for cell in row] for row in table.rows)]
    widths = [max(len(line[i]) for line in grid) for i in range(len(table.columns))]
    head, *body = [_aligned(line, widths, table.columns) for line in grid]
    rule = "  ".join("-" * width for width in widths)
    lines = [clean(table.title), "", head, rule, *body]
    return "\n".join(lines + (["", clean(table.note)] if table.note else []))


def _aligned(line: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    cells = [
        text.rjust(width) if column.align == "right" else text.ljust(width)
        for text, width, column in zip(line, widths, columns, strict=True)
    ]
    return "  ".join(cells).rstrip()


def table_markdown(table: Table) -> str:
    """Return a table as GitHub Markdown, with its title in bold above and its note below."""
    head = _md_row([column.title for column in table.columns])
    rule = "|" + "|".join("---:" if c.align == "right" else "---" for c in table.columns) + "|"
    body = [_md_row([cell.text for cell in row]) for row in table.rows]
    lines = [f"**{_md(table.title)}**", "", head, rule, *body]
    return "\n".join(lines + (["", _md(table.note)] if table.note else []))


def _md_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(_md(text).replace("|", r"\|") for text in texts) + " |"


def _md(text: str) -> str:
    """Return text that Markdown shows as it is: names may hold marks and tags."""
    escaped = clean(text)
    for mark in "\\`*_[]<>":
        escaped = escaped.replace(mark, "\\" + mark)
    # A lone ~ reads as "about"; two pairs of them would strike text through.
    return escaped.replace("~", r"\~")


def to_text(document: Document) -> str:
    """Return the document as plain text."""
    parts = [f"{clean(document.title)}\n{'=' * len(document.title)}", *map(clean, document.paragraphs)]
    for section in document.sections:
        parts += [section.title + "\n" + "-" * len(section.title), *_flow(section, table_text)]
    return "\n\n".join(parts) + "\n"


def to_markdown(document: Document) -> str:
    """Return the document as GitHub Markdown."""
    parts = [f"# {_md(document.title)}", *(_md(p) for p in document.paragraphs)]
    for section in document.sections:
        parts += [f"## {_md(section.title)}", *_flow(section, table_markdown, markdown=True)]
    return "\n\n".join(parts) + "\n"


def _flow(section: Section, show: Callable[[Table], str], *, markdown: bool = False) -> list[str]:
    escape = _md if markdown else clean
    points = "\n".join(f"- {escape(point)}" for point in section.points)
    return [*(escape(p) for p in section.paragraphs), *([points] if points else []), *(show(t) for t in section.tables)]
