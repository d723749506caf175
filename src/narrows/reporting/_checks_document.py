"""Checks as one HTML page: what was measured of dense, int8 and every compressed folder, charts first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from narrows.reporting._check import check_tables
from narrows.reporting._checks import check_comparable, check_points, workloads_of
from narrows.reporting._headline import Tile
from narrows.reporting._html import _section
from narrows.reporting._model import measured_table, ratio_of_perplexity_text, share_text, span_text
from narrows.reporting._model_chart import quality_by_bytes, quality_by_speed
from narrows.reporting._model_document import findings_of, header_html, pair_html
from narrows.reporting._model_points import placed
from narrows.reporting._page import page
from narrows.reporting._records import Document, Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from narrows._values import Workload
    from narrows._values._check import Check
    from narrows.reporting._plot import Chart
    from narrows.reporting._table import Table

NO_CHART = "Charts are of perplexity; this model has none: its quality is in the tables below."


def checks_document(checks: Sequence[Check]) -> str:
    """Return checks of one model as one self-contained HTML page.

    Raises:
        InputError: they are of different models, texts, dtypes or machines.
    """
    made = checks_report(checks)
    told = "".join(_section(section, index) for index, section in enumerate(made.sections))
    body = (header_html(made.title, made.paragraphs[0], _tiles(checks), made.sections), _charts(checks), told)
    return page(made.title, "\n".join(body))


def checks_report(checks: Sequence[Check]) -> Document:
    """Return checks of one model as a document: what was measured side by side, then each check's own tables.

    Raises:
        InputError: as `checks_document`.
    """
    sections, first = checks_sections(checks), checks[0]
    lede = f"As measured on {first.device_name}, {first.dtype}. Speedups are against dense in the same run."
    return Document(f"{first.model}, dense and compressed", (lede,), sections)


def checks_sections(checks: Sequence[Check]) -> tuple[Section, ...]:
    """Return the sections: who beats whom at each workload, then each check's own tables.

    Raises:
        InputError: as `checks_document`.
    """
    check_comparable(checks)
    compared = tuple(_compared(checks, load) for load in workloads_of(checks) or (None,))
    own = tuple(Section(f"Check of {check.folder}", tables=check_tables(check)) for check in checks)
    return (*compared, *own)


def checks_tables(checks: Sequence[Check]) -> tuple[Table, ...]:
    """Return one table of all models for each workload.

    Raises:
        InputError: as `checks_document`.
    """
    return tuple(table for section in checks_sections(checks)[: -len(checks)] for table in section.tables)


def _compared(checks: Sequence[Check], workload: Workload | None) -> Section:
    points = check_points(checks, workload)
    found = placed((), points)
    facts = [*findings_of(found, "speedup"), *findings_of(found, "bytes")]
    where = "" if workload is None else f" at {workload}"
    return Section(f"What was measured{where}", points=tuple(facts), tables=(measured_table((), points),))


def _charts(checks: Sequence[Check]) -> str:
    drawn = tuple(_drawn(checks))
    return f'<section id="charts"><h2>Charts</h2>{pair_html(drawn, "c") if drawn else f"<p>{NO_CHART}</p>"}</section>'


def _drawn(checks: Sequence[Check]) -> Iterator[Chart]:
    """Yield quality against speed at each workload, and against bytes, which no workload changes."""
    if checks[0].kind != "causal":
        return
    for load in workloads_of(checks):
        chart = quality_by_speed((), check_points(checks, load))
        if chart is not None:
            yield replace(chart, title=f"{chart.title} at {load}")
    chart = quality_by_bytes((), check_points(checks, None))
    if chart is not None:
        yield chart


def _tiles(checks: Sequence[Check]) -> tuple[Tile, ...]:
    """Return one tile for each folder: its perplexity, what it keeps, its speed at the first workload."""
    loads = workloads_of(checks)
    points = check_points(checks, loads[0] if loads else None)
    found = []
    for one in (one for one in placed((), points) if one.is_choice):
        point = one.point
        speed = (
            "" if point.speedup is None else span_text(point.speedup, point.speedup_low, point.speedup_high, "{:.3f}x")
        )
        parts = [point.note, f"{speed} at {loads[0]}" if speed else ""]
        detail = ", ".join(part for part in parts if part)
        if one.perplexity_ratio is None:
            found.append(Tile("Numbers kept", share_text(point.kept), detail))
        else:
            name = f"Perplexity / dense at {share_text(point.kept)} of the numbers"
            found.append(Tile(name, ratio_of_perplexity_text(one.perplexity_ratio), detail))
    return tuple(found)
