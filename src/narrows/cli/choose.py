"""`narrows choose`: the plan, dense or (rank, implementation), with its reasons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from narrows.cli._output import emit, output_options
from narrows.cli._ranges import parse_bytes

if TYPE_CHECKING:
    from narrows._values import Plan


EXAMPLE = """\b
Example:
  narrows choose report.json --tokens 1024 --error 0.01 --min-speedup 1.1 --max-bytes 64MB
"""


@click.command(epilog=EXAMPLE)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--tokens", type=int, metavar="T", help="Only this length. Default: one plan for every measured length.")
@click.option("--error", type=float, metavar="E", help="Largest relative output error (0.01 is 1 %).")
@click.option("--min-speedup", type=float, metavar="S", help="Smallest speedup over dense (its lower 99 % end).")
@click.option("--max-bytes", metavar="SIZE", help="Most that the factors may take: 64MB, 64MiB or bytes.")
@click.option("--weight", metavar="NAME", help="Whose error. Default: the report's first weight.")
@click.option("--mode", metavar="NAME", help="eager or graph. Default: the report's first.")
@click.option("--cache", metavar="NAME", help="hot or cold. Default: the report's first.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="PLAN", help="Write the plan (JSON) here.")
@output_options
def command(
    *,
    file: Path,
    tokens: int | None,
    error: float | None,
    min_speedup: float | None,
    max_bytes: str | None,
    weight: str | None,
    mode: str | None,
    cache: str | None,
    output: Path | None,
    output_format: str | None,
) -> None:
    """Choose a rank, or dense, for each length.

    Of the ranks within the budget that are faster than dense beyond doubt, the fastest; among ties
    the largest rank; dense wins ties. Exits 1 when nothing meets the budget, and names what comes nearest.
    """
    from narrows._values import Budget
    from narrows.cli._input import read_report
    from narrows.planning import choose
    from narrows.reporting import plan_table, reasons_table

    num_bytes = None if max_bytes is None else parse_bytes(max_bytes, "--max-bytes")
    budget = Budget(error=error, min_speedup=min_speedup, max_bytes=num_bytes)
    plan = choose(read_report(file), budget, tokens=tokens, weight=weight, mode=mode, cache=cache)
    if output is not None:
        _write(plan, output)
    emit([plan_table(plan), reasons_table(plan)], output_format)


def _write(plan: Plan, path: Path) -> None:
    from narrows._files import write_text_atomic

    write_text_atomic(path, plan.to_json() + "\n")
    click.echo(f"wrote {path}", err=True)
