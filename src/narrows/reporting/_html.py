"""The document as one HTML file: no network, light and dark, readable without scripts and on paper."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from narrows.reporting._charts import charts, length_style
from narrows.reporting._document import document
from narrows.reporting._environment import environment_html
from narrows.reporting._headline import headline
from narrows.reporting._page import page
from narrows.reporting._part import Part, parts
from narrows.reporting._plot import draw, marker_svg

if TYPE_CHECKING:
    from narrows._values import Report
    from narrows.reporting._plot import Chart
    from narrows.reporting._records import Document, Section
    from narrows.reporting._table import Cell, Column, Table

BADGES = {"holds": "holds", "refuted": "refuted", "cannot tell": "unsure"}
LONG_TEXT = 40  # letters from which a cell may wrap and gets room
MANY_ROWS = 60  # more than the statements; longer tables scroll in a window of their own
CHART_WORDS = {
    "speedup-error": (
        "Speedup against error",
        (
            "Each panel is one weight; up and to the left is better. Filled markers: nothing measured at that length "
            "is both faster and at least as exact. Outlines: another rank, or dense, is."
        ),
    )
}


def html_page(report: Report) -> str:
    """Return the report as one self-contained HTML page.

    Every text that comes from files or names is escaped. The charts are inline SVG; a script adds
    hover values and highlighting, and without it `<title>` texts and tables hold the same values.
    """
    made = document(report)
    found = parts(report)
    sections = "".join(_section(section, index) for index, section in enumerate(made.sections))
    body = (_header(made, found), _charts(found), sections, environment_html(report))
    return page(made.title, "\n".join(body))


def _header(made: Document, found: tuple[Part, ...]) -> str:
    tiles = "".join(
        f'<div><dt>{escape(tile.name)}</dt><dd class="figure">{escape(tile.figure)}</dd>'
        f"<dd>{escape(tile.detail)}</dd></div>"
        for tile in headline(found)
    )
    paragraphs = "".join(f'<p class="lede">{escape(text)}</p>' for text in made.paragraphs)
    names = [("charts", "Charts")] if found else []
    names += [(f"s{index}", section.title) for index, section in enumerate(made.sections)]
    names.append(("environment", "Environment"))
    links = "".join(f'<li><a href="#{anchor}">{escape(name)}</a></li>' for anchor, name in names)
    return (
        f'<header><p class="mark">narrows</p><h1>{escape(made.title)}</h1>{paragraphs}'
        f'<dl class="tiles">{tiles}</dl><nav aria-label="Sections"><ul>{links}</ul></nav></header>'
    )


def _charts(found: tuple[Part, ...]) -> str:
    if not found:
        return ""
    body = "".join(_group(part, index, is_alone=len(found) == 1) for index, part in enumerate(found))
    return f'<section id="charts"><h2>Charts</h2>{body}</section>'


def _group(part: Part, index: int, *, is_alone: bool) -> str:
    heading = "" if is_alone else f"<h3>{escape(part.name.capitalize())}</h3>"
    buttons = "".join(
        f'<button type="button" class="key" data-key="t{tokens}" aria-pressed="false">'
        f"{marker_svg(length_style(part, tokens), place)}{tokens}</button>"
        for place, tokens in enumerate(part.tokens)
    )
    legend = f'<div class="legend" role="group" aria-label="Highlight a length"><span>Tokens</span>{buttons}</div>'
    return f'<div class="group">{heading}{legend}{_figures(charts(part), f"g{index}")}</div>'


def _figures(drawn: tuple[Chart, ...], prefix: str) -> str:
    """Return the charts in pairs, and the panels of one question in a row between them."""
    figures = [(chart, draw(chart, f"{prefix}c{index}")) for index, chart in enumerate(drawn)]
    panels = "".join(figure for chart, figure in figures if chart.key in CHART_WORDS)
    single = [_with_keys(chart, figure) for chart, figure in figures if chart.key not in CHART_WORDS]
    title, note = CHART_WORDS["speedup-error"]
    row = f'<div class="wide"><h4>{title}</h4><p>{note}</p><div class="panels">{panels}</div></div>' if panels else ""
    return f'<div class="pair">{"".join(single[:2])}</div>{row}<div class="pair">{"".join(single[2:])}</div>'


def _with_keys(chart: Chart, figure: str) -> str:
    """Add a legend of its own to a chart whose series are not the lengths."""
    if chart.key != "best-length":
        return figure
    keys = "".join(
        f'<li class="key">{marker_svg(one.style, one.marker)}{escape(one.name)}</li>' for one in chart.series
    )
    return figure.replace('<details class="data">', f'<ul class="keys">{keys}</ul><details class="data">', 1)


def _section(section: Section, index: int) -> str:
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in section.paragraphs)
    points = "".join(f"<li>{escape(text)}</li>" for text in section.points)
    points = f"<ul>{points}</ul>" if points else ""
    tables = "".join(_table(table) for table in section.tables)
    return f'<section id="s{index}"><h2>{escape(section.title)}</h2>{paragraphs}{points}{tables}</section>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col"{_align(column)}>{escape(column.title)}</th>' for column in table.columns)
    rows = "".join(
        f"<tr>{''.join(_cell(cell, column) for cell, column in zip(row, table.columns, strict=True))}</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    size = "scroll tall" if len(table.rows) > MANY_ROWS else "scroll"
    grid = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    body = f'<div class="{size}" tabindex="0">{grid}</div>' if table.rows else ""
    return f'<div class="table"><h3>{escape(table.title)}</h3>{body}{note}</div>'


def _align(column: Column) -> str:
    return ' class="r"' if column.align == "right" else ""


def _cell(cell: Cell, column: Column) -> str:
    if cell.text in BADGES:
        return f'<td><span class="badge {BADGES[cell.text]}">{cell.text}</span></td>'
    if column.align == "right":
        return f'<td class="r">{escape(cell.text)}</td>'
    kind = "long" if len(cell.text) > LONG_TEXT else "short"
    return f'<td class="{kind}">{escape(cell.text)}</td>'
