"""Error against rank of real weights, as tables, arrays and a page. Letters: D input, E output features."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from narrows.reporting._axes import sizes_axis
from narrows.reporting._page import page
from narrows.reporting._plot import Axis, Chart, Point, Series, draw, marker_svg, ordered_style
from narrows.reporting._table import Cell, Column, Table
from narrows.reporting._text import MISSING, error_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    from narrows._values import Certificate

TICKS = (0.0, 0.01, 0.05, 0.10, 0.25, 0.50, 1.0)
ERRORS = (0.50, 0.25, 0.10, 0.05, 0.01)
NOTE = (
    "Error: ||W - W_rank|| / ||W|| (Frobenius), the least that any factors of that rank can have. "
    "Below the break-even rank D E / (D + E) two factors hold fewer numbers than the dense weight."
)


@dataclass(frozen=True, slots=True)
class LayerSpectrum:
    """One weight with the certificate of its exact SVD.

    Attributes:
        name: of the tensor.
        out_features, in_features: E, D.
        certificate: knows the error of every rank 0..min(D, E).
    """

    name: str
    out_features: int
    in_features: int
    certificate: Certificate

    @property
    def break_even_rank(self) -> float:
        """D E / (D + E): the rank whose two factors hold as many numbers as the weight."""
        return self.in_features * self.out_features / (self.in_features + self.out_features)


def spectrum_tables(layers: Sequence[LayerSpectrum], ranks: Sequence[int]) -> tuple[Table, Table]:
    """Return the errors at `ranks`, and the ranks that 50, 25, 10, 5 and 1 % of error need."""
    errors = Table(
        "errors",
        "Error by rank",
        (*_LAYER_COLUMNS, *_rank_columns(ranks)),
        tuple((*_layer_cells(layer), *_error_cells(layer, ranks)) for layer in layers),
        NOTE,
    )
    needed = Table(
        "ranks",
        "Rank needed for an error of at most",
        (*_LAYER_COLUMNS, *_NEEDED_COLUMNS),
        tuple((*_layer_cells(layer), *_needed_cells(layer)) for layer in layers),
        "In brackets: at or above the break-even rank, where the dense weight is smaller.",
    )
    return errors, needed


def spectrum_row_table(layers: Sequence[LayerSpectrum], ranks: Sequence[int]) -> Table:
    """Return everything of `spectrum_tables` in one table, a row a layer (a CSV file is one table)."""
    columns = (*_LAYER_COLUMNS, *_NEEDED_COLUMNS, *_rank_columns(ranks))
    rows = tuple((*_layer_cells(each), *_needed_cells(each), *_error_cells(each, ranks)) for each in layers)
    return Table("spectrum", "Error against rank", columns, rows, NOTE)


def spectrum_arrays(layers: Sequence[LayerSpectrum], ranks: Sequence[int]) -> dict[str, np.ndarray]:
    """Return arrays for NumPy's .npz, L layers.

    names (L,), shapes (L, 2) as (E, D), ranks (K,), errors (L, K) with NaN above a layer's rank, and
    for layer i singular_values_i (R,) and errors_i (R + 1,) of every rank 0..R.
    """
    import numpy as np

    arrays = {
        "names": np.array([layer.name for layer in layers], dtype=np.str_),
        "shapes": np.array([(layer.out_features, layer.in_features) for layer in layers], dtype=np.int64),
        "ranks": np.array(ranks, dtype=np.int64),
        "errors": np.array([[_error(layer, rank) for rank in ranks] for layer in layers], dtype=np.float64),
    }
    for index, layer in enumerate(layers):
        every = range(layer.certificate.rank + 1)
        arrays[f"singular_values_{index}"] = np.array(layer.certificate.singular_values[0], dtype=np.float64)
        arrays[f"errors_{index}"] = np.array([layer.certificate.error(rank) for rank in every], dtype=np.float64)
    return arrays


def spectrum_html(layers: Sequence[LayerSpectrum], source: str) -> str:
    """Return one self-contained page (no network, light and dark) with error against rank of every layer.

    Args:
        layers: at least one.
        source: where the weights came from; any text, it is escaped.
    """
    title = f"Error against rank: {source}"
    header = f'<header><p class="mark">narrows</p><h1>{escape(title)}</h1><p class="lede">{escape(NOTE)}</p></header>'
    chart = f'<section class="group">{_legend(layers)}{draw(spectrum_chart(layers), "spectrum")}</section>'
    return page(title, f"{header}\n{chart}")


def spectrum_chart(layers: Sequence[LayerSpectrum]) -> Chart:
    """Return error against rank, one line a layer."""
    series = tuple(
        Series(layer.name, f"l{index}", ordered_style(index, len(layers)), index, tuple(_points(layer)))
        for index, layer in enumerate(layers)
    )
    largest = max(layer.certificate.rank for layer in layers)
    return Chart(
        key="spectrum",
        title="Error against rank",
        note="One line for each layer; the error is on a square-root axis, so that small ones have room.",
        columns=("Layer", "Rank", "Error", "Break-even rank"),
        x=sizes_axis("rank", [2**power for power in range(largest.bit_length())]),
        y=Axis("error", 0.0, 1.05, tuple((tick, f"{tick:.0%}") for tick in TICKS), "root"),
        series=series,
        width=960.0,
        height=480.0,
    )


def _legend(layers: Sequence[LayerSpectrum]) -> str:
    buttons = "".join(
        f'<button type="button" class="key" data-key="l{index}" aria-pressed="false">'
        f"{marker_svg(ordered_style(index, len(layers)), index)}{escape(layer.name)}</button>"
        for index, layer in enumerate(layers)
    )
    return f'<div class="legend" role="group" aria-label="Highlight a layer"><span>Layers</span>{buttons}</div>'


def _points(layer: LayerSpectrum) -> Iterable[Point]:
    """Give ranks 1, 2, 3, 4, 6, 8, 12, ... and the full one."""
    full = layer.certificate.rank
    steps = {scale << power for power in range(full.bit_length()) for scale in (2, 3)} | {1, full}
    for rank in sorted(step for step in steps if step <= full):
        error = layer.certificate.error(rank)
        cells = (layer.name, str(rank), error_text(error), f"{layer.break_even_rank:.1f}")
        yield Point(rank, error, cells)


def _error(layer: LayerSpectrum, rank: int) -> float:
    return layer.certificate.error(rank) if rank <= layer.certificate.rank else float("nan")


_LAYER_COLUMNS = (
    Column("layer", "Layer", "left"),
    Column("out_features", "E"),
    Column("in_features", "D"),
    Column("break_even_rank", "Break-even"),
)
_NEEDED_COLUMNS = tuple(Column(f"rank_for_{error:.0%}".replace("%", "_percent"), f"{error:.0%}") for error in ERRORS)


def _rank_columns(ranks: Sequence[int]) -> tuple[Column, ...]:
    return tuple(Column(f"error_at_rank_{rank}", f"R={rank}") for rank in ranks)


def _layer_cells(layer: LayerSpectrum) -> tuple[Cell, ...]:
    return (
        Cell(layer.name, layer.name or "(array)"),
        Cell(layer.out_features, str(layer.out_features)),
        Cell(layer.in_features, str(layer.in_features)),
        Cell(layer.break_even_rank, f"{layer.break_even_rank:.1f}"),
    )


def _error_cells(layer: LayerSpectrum, ranks: Sequence[int]) -> tuple[Cell, ...]:
    known = [None if rank > layer.certificate.rank else layer.certificate.error(rank) for rank in ranks]
    return tuple(MISSING if error is None else Cell(error, error_text(error)) for error in known)


def _needed_cells(layer: LayerSpectrum) -> tuple[Cell, ...]:
    ranks = [layer.certificate.smallest_rank(error) for error in ERRORS]
    return tuple(MISSING if rank is None else Cell(rank, _needed_text(layer, rank)) for rank in ranks)


def _needed_text(layer: LayerSpectrum, rank: int) -> str:
    return f"({rank})" if rank >= layer.break_even_rank else str(rank)
