"""One place for what the verbs print: tables on a terminal, aligned text in a pipe, --json, --csv, --md."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from narrows.reporting import Table

_F = TypeVar("_F", bound="Callable[..., object]")


def output_options(function: _F) -> _F:
    """Return the command function with --json, --csv and --md; it gets `output_format` (None without a flag)."""
    for name, text in (("md", "Markdown"), ("csv", "CSV, one table"), ("json", "JSON, numbers unrounded")):
        function = click.option(f"--{name}", "output_format", flag_value=name, help=f"Print {text}.")(function)
    return function


def emit(tables: Table | Sequence[Table], output_format: str | None) -> None:
    """Print tables in one format.

    Args:
        tables: CSV prints the first one: a CSV file is one table.
        output_format: "json", "csv" or "md"; None: drawn on a terminal, aligned plain text in a pipe.
    """
    from narrows.reporting import Table, table_markdown, table_text

    shown = [tables] if isinstance(tables, Table) else list(tables)
    if output_format == "json":
        click.echo(json.dumps({t.name: as_data(t) for t in shown}, indent=2, allow_nan=False))
    elif output_format == "csv":
        click.echo(to_csv(shown[0]), nl=False)
    elif output_format == "md":
        click.echo("\n\n".join(table_markdown(table) for table in shown))
    elif sys.stdout.isatty():
        from narrows.cli._draw import draw

        draw(shown)
    else:
        click.echo("\n\n".join(table_text(table) for table in shown))


def as_data(table: Table) -> dict[str, object]:
    """Return a table for JSON: values, not texts; what is not finite is null."""
    names = [column.name for column in table.columns]
    rows = [{name: _finite(cell.value) for name, cell in zip(names, row, strict=True)} for row in table.rows]
    return {"title": table.title, "note": table.note, "rows": rows}


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_csv(table: Table) -> str:
    """Return a table as CSV (RFC 4180 quoting, one header line) that a spreadsheet cannot execute."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_guarded(column.name) for column in table.columns])
    for row in table.rows:
        writer.writerow([_guarded(_finite(cell.value)) for cell in row])
    return buffer.getvalue()


def _guarded(value: object) -> object:
    """Return text without control characters, and with ' before what a spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = "".join(c for c in value if c.isprintable())
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text
