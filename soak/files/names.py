"""Names from foreign files in everything that narrows prints or draws: no markup, no formula, no control sequence."""

from __future__ import annotations

import csv
import io
from random import Random
from typing import TYPE_CHECKING

from narrows._values import Certificate
from narrows.cli._output import to_csv
from narrows.reporting import table_markdown, table_text
from narrows.reporting._spectrum import LayerSpectrum, spectrum_html, spectrum_row_table, spectrum_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "'><svg/onload=alert(1)>",
    "</script><b>",
    "]]>",
    "&lt;",
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\x1b[31m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x00",
    "\x7f",
    "\u202e",
    "|",
    "`",
    "\n",
    "../../x",
    "layers.0",
    "\u00e9",
    "\U0001f600",
)
MARKUP = ("<script>alert", "<img src=x", 'onmouseover="alert', "<svg/onload", "</script><b>")
FORMULAS = ("=", "+", "-", "@", "\t", "\r")
LINES = frozenset("\n")


def drawn(seed: int, index: int) -> str:
    """Return one name: some hostile parts after each other."""
    rng = Random(f"{seed}/name/{index}")  # noqa: S311 (no secret)
    return "".join(rng.choices(PARTS, k=rng.randint(1, 4)))


def complaints(names: list[str]) -> Iterator[str]:
    """Yield what is wrong with the page, tables and lines that show layers of these names."""
    certificate = Certificate("exact", ((2.0, 1.0),), norm=5**0.5, residual=0.0)
    layers = [LayerSpectrum(name, 2, 2, certificate) for name in names]
    yield from page_complaints(spectrum_html(layers, names[0]))
    tables = [*spectrum_tables(layers, (1,)), spectrum_row_table(layers, (1,))]
    for table in tables:
        yield from sheet_complaints(to_csv(table))
        for text in (table_text(table), table_markdown(table)):
            yield from line_complaints(text)


def page_complaints(page: str) -> Iterator[str]:
    """Yield the markup of names that a browser would take for the page's own."""
    yield from (f"the page holds {one!r}" for one in MARKUP if one in page)


def sheet_complaints(sheet: str) -> Iterator[str]:
    """Yield cells that a spreadsheet would compute, or that hold control characters."""
    for row in csv.reader(io.StringIO(sheet)):
        for cell in row:
            if cell.lstrip(" ").startswith(FORMULAS) and not _is_number(cell):
                yield f"the sheet holds the formula {cell!r}"
            yield from line_complaints(cell)


def line_complaints(text: str) -> Iterator[str]:
    """Yield characters that would move a terminal's cursor, or change what stands on it."""
    bad = {one for one in text if not one.isprintable() and one not in LINES}
    if bad:
        yield f"control characters {sorted(bad)!r} in a line"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
