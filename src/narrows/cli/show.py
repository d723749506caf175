"""`narrows show`: the origin's tables and document remade from a report, or checks of a model side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from narrows.cli._output import emit, output_options
from narrows.errors import InputError

if TYPE_CHECKING:
    from narrows._values import Report
    from narrows._values._check import Check
    from narrows.reporting import Table


EXAMPLE = """\b
Example:
  narrows show report.json --error 0.05
  narrows show report.json --html report.html
  narrows show keep-90.json keep-80.json --html model.html
"""


@click.command(epilog=EXAMPLE)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--best", is_flag=True, help="Only the best rank for each length.")
@click.option("--statements", is_flag=True, help="Only the origin's statements, each with its verdict.")
@click.option("--error", type=float, metavar="E", help="Error budget of the best ranks (0.05 is 5 %). Default: 0.05.")
@click.option("--weight", metavar="NAME", help="Only this weight's errors.")
@click.option("--html", type=click.Path(path_type=Path), metavar="OUT", help="Write the document as one HTML file.")
@output_options
def command(
    *,
    files: tuple[Path, ...],
    best: bool,
    statements: bool,
    error: float | None,
    weight: str | None,
    html: Path | None,
    output_format: str | None,
) -> None:
    """Show tables, findings and the document of a report, or checks of a model side by side.

    Of a report: best rank by length, speedup with its error, key findings, the origin's statements. Of one or several
    checks (`narrows check -o FILE`): dense, int8 and every compressed folder by quality, speed and bytes.

    --md without --best or --statements prints the whole document; --csv prints every measured row.
    """
    from narrows._values import Budget
    from narrows.cli._input import read_report_or_checks
    from narrows.reporting import of_weight

    Budget(error=error)  # the same check of its value
    report = read_report_or_checks(files)
    if isinstance(report, tuple):
        _refuse({"--best": best, "--statements": statements, "--error": error, "--weight": weight})
        _show_checks(report, html, output_format)
        return
    report = report if weight is None else of_weight(report, weight)
    if html is not None:
        _write_page(report, html)
        if not (best or statements or output_format):
            return
    if output_format == "md" and not (best or statements):
        _print_document(report)
        return
    emit(_tables(report, error, best=best, statements=statements, output_format=output_format), output_format)


def _refuse(given: dict[str, object]) -> None:
    """Raise InputError where an option is given that only a report has."""
    named = [name for name, value in given.items() if value]
    if named:
        raise InputError(f"{', '.join(named)}: only a report of `narrows measure` has that; these files are checks.")


def _show_checks(checks: tuple[Check, ...], html: Path | None, output_format: str | None) -> None:
    from narrows._files import write_text_atomic
    from narrows.reporting import check_tables, checks_document, checks_tables

    if html is not None:
        write_text_atomic(html, checks_document(checks))
        click.echo(f"wrote {html}", err=True)
        if not output_format:
            return
    own = check_tables(checks[0]) if len(checks) == 1 else ()
    emit([*checks_tables(checks), *own], output_format)


def _write_page(report: Report, path: Path) -> None:
    from narrows._files import write_text_atomic
    from narrows.reporting import html_page

    write_text_atomic(path, html_page(report))
    click.echo(f"wrote {path}", err=True)


def _print_document(report: Report) -> None:
    from narrows.reporting import document, to_markdown

    click.echo(to_markdown(document(report)), nl=False)


def _tables(
    report: Report, error: float | None, *, best: bool, statements: bool, output_format: str | None
) -> list[Table]:
    from narrows import reporting

    if best or statements:
        chosen = _best(report, error) if best else []
        return chosen + ([reporting.statements_table(reporting.statements(report))] if statements else [])
    if output_format == "csv":
        return [reporting.rows_table(report)]
    budget = reporting.ERROR_BUDGET if error is None else error
    tables = [*_best(report, budget), *(reporting.speedup_table(part) for part in reporting.parts(report))]
    tables += [reporting.weights_table(report), reporting.findings_table(report, error=budget)]
    if output_format == "json":
        tables += [reporting.rows_table(report), reporting.statements_table(reporting.statements(report))]
        return [*tables, reporting.doubts_table(report)]
    return [*tables, reporting.doubts_summary(report)]


def _best(report: Report, error: float | None) -> list[Table]:
    """Return the best ranks; within a budget first, where one was given."""
    from narrows.reporting import best_table, budget_table

    return [best_table(report)] if error is None else [best_table(report), budget_table(report, error)]
