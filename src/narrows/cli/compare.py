"""`narrows compare`: the ratio of times of two reports, or "not distinguishable"."""

from __future__ import annotations

from pathlib import Path

import click

from narrows.cli._output import emit, output_options

EXAMPLE = """\b
Example:
  narrows compare before.json after.json
"""


@click.command(epilog=EXAMPLE)
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Compare although the conditions differ.")
@output_options
def command(*, a: Path, b: Path, force: bool, output_format: str | None) -> None:
    """Compare two reports row by row.

    Shows time in A / time in B, or "not distinguishable". The runs were not interleaved, so a row has
    changed only where the middle 90 % of its samples in both lie more than 2 % apart.

    Exits 1 when some row of B is slower than in A by that (a regression).
    """
    from narrows.cli._input import read_report
    from narrows.planning import compare
    from narrows.reporting import differences_table

    differences = compare(read_report(a), read_report(b), force=force)
    emit(differences_table(differences), output_format)
    if differences.slower:
        click.get_current_context().exit(1)
