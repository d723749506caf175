"""A table as a value: cells hold the number and how it is shown; every output format reads the same one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A value for machines and its text for people."""

    value: Value
    text: str


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: of the value in JSON and CSV, with its unit ("time_ns").
        title: what people read above it.
        align: numbers stand right.
        is_detail: left out on a terminal, where width is short.
    """

    name: str
    title: str
    align: Literal["left", "right"] = "right"
    is_detail: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under columns; every row has one cell a column.

    Attributes:
        name: key in JSON ("best").
        title: what people read above the table.
        note: what to know when reading it; may be empty.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row) == len(self.columns), (self.name, len(row), len(self.columns))
