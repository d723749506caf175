"""Tables of a model whose damage is no growth of a loss in nats, and so says nothing of perplexity."""

from __future__ import annotations

from dataclasses import replace

from narrows.reporting._table import Cell, Table

NATS = {"predicted growth of the loss, nats a token": "predicted damage"}
PERPLEXITY = frozenset({"predicted perplexity / dense", "perplexity_ratio"})


def without_nats(table: Table) -> Table:
    """Return a table of a plan or a frontier without its unit of damage, and without the perplexity made of it."""
    kept = [place for place, column in enumerate(table.columns) if column.name not in PERPLEXITY]
    columns = tuple(
        replace(table.columns[place], title=table.columns[place].title.removesuffix(", nats")) for place in kept
    )
    rows = tuple(tuple(_renamed(row[place]) for place in kept) for row in table.rows if row[0].value not in PERPLEXITY)
    return replace(table, columns=columns, rows=rows)


def _renamed(cell: Cell) -> Cell:
    name = NATS.get(cell.text)
    return cell if name is None else Cell(name, name)
