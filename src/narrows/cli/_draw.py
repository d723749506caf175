"""Tables on a terminal: what is too wide is cut into blocks that repeat the first column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Drawn
from rich.text import Text

from narrows.reporting import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows.reporting import Table

WRAPS = 24  # letters: words longer than this may be broken into lines of their column
GAP, EDGE = 3, 1  # letters that the box adds to a column, and to a table


def draw(tables: Sequence[Table], console: Console | None = None) -> None:
    """Draw tables on the terminal."""
    screen = console or Console(markup=False, highlight=False, emoji=False)
    for table in tables:
        screen.print(Text(clean(table.title), style="bold"))
        for columns in blocks(table, screen.width):
            screen.print(_drawn(table, columns, screen.width))
        if table.note:
            screen.print(Text(clean(table.note), style="dim"))
        screen.print()


def blocks(table: Table, width: int) -> list[list[int]]:
    """Return the columns of each block: as many as fit the width, the first column in every block."""
    shown = [index for index, column in enumerate(table.columns) if not column.is_detail]
    widths = {index: _least(table, index) + GAP for index in shown}
    found = [[0]]
    for index in shown[1:]:
        if len(found[-1]) > 1 and sum(widths[i] for i in found[-1]) + widths[index] + EDGE > width:
            found.append([0])
        found[-1].append(index)
    return found


def _least(table: Table, index: int) -> int:
    """Return the width below which a column would break words or numbers."""
    words = [len(word) for word in table.columns[index].title.split()]
    return max([*words, *(min(length, WRAPS) for length in _lengths(table, index))], default=1)


def _lengths(table: Table, index: int) -> list[int]:
    return [len(row[index].text) for row in table.rows]


def _widths(table: Table, columns: Sequence[int], width: int) -> dict[int, int]:
    """Return the width of each column: the least, then what is left, to those that need little more first."""
    found = {index: _least(table, index) for index in columns}
    wanted = {i: max([len(table.columns[i].title), *_lengths(table, i)]) for i in columns}
    spare = width - EDGE - sum(found.values()) - GAP * len(found)
    for index in sorted(found, key=lambda i: wanted[i] - found[i]):
        more = max(min(wanted[index] - found[index], spare), 0)
        found[index] += more
        spare -= more
    return found


def _drawn(table: Table, columns: Sequence[int], width: int) -> Drawn:
    drawn = Drawn(box=SIMPLE_HEAD)
    for index, letters in _widths(table, columns, width).items():
        column = table.columns[index]
        drawn.add_column(Text(column.title), justify=column.align, overflow="fold", width=letters)
    for row in table.rows:
        drawn.add_row(*(Text(clean(row[index].text)) for index in columns))
    return drawn
