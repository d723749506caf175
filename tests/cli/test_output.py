"""One table in every format: safe CSV, exact JSON, blocks on a narrow terminal."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from narrows.cli._draw import blocks, draw
from narrows.cli._output import to_csv
from narrows.reporting import Cell, Column, Table, best_table
from reporting.reports import make_report


def table_of(text: str) -> Table:
    return Table(
        "t", "Title", (Column("name", "Name", "left"), Column("n", "N")), ((Cell(text, text), Cell(-1.5, "-1.5")),)
    )


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "  =cmd()", "\t=cmd()"])
def test_csv_text_is_no_formula(text):
    assert list(csv.reader(io.StringIO(to_csv(table_of(text)))))[1][0].startswith("'")


def test_csv_numbers_stay_numbers():
    assert to_csv(table_of("plain")) == "name,n\nplain,-1.5\n"


@given(text=st.text(max_size=40))
def test_csv_has_no_control_characters_and_no_formulas_whatever_a_name_holds(text):
    rows = list(csv.reader(io.StringIO(to_csv(table_of(text)))))

    assert len(rows) == 2
    assert rows[1][0] == "" or rows[1][0].isprintable()
    assert not rows[1][0].lstrip().startswith(("=", "+", "-", "@"))


def test_a_wide_table_is_cut_into_blocks_that_repeat_the_first_column_and_lose_nothing():
    table = best_table(make_report(tokens=(64,), ranks=(64, 128)))

    found = blocks(table, 60)

    assert len(found) > 1
    assert all(block[0] == 0 for block in found)
    assert sorted({index for block in found for index in block}) == list(range(len(table.columns)))


@pytest.mark.parametrize("width", [50, 60, 80, 81, 100, 200])
def test_every_value_is_on_the_screen_at_any_width(width):
    table = best_table(make_report(tokens=(64, 128), ranks=(64, 128)))
    console = Console(file=io.StringIO(), width=width)

    draw([table], console)

    screen = console.file.getvalue()
    assert all(cell.text in screen for row in table.rows for cell in row)
    assert max(len(line) for line in screen.splitlines()) <= width


def test_markup_in_a_name_is_text():
    console = Console(file=io.StringIO(), width=80, markup=False)

    draw([table_of("[red]x[/red]\x1b[31m")], console)

    assert "[red]x[/red]" in console.file.getvalue()
    assert "\x1b[31m" not in console.file.getvalue()
