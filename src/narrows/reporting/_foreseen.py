"""What compressing a model will take and can gain at most, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.reporting import _cells as cells
from narrows.reporting._model import share_text
from narrows.reporting._table import Cell, Column, Table
from narrows.reporting._text import bytes_text, count_text, time_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from narrows._values._foreseen import Foreseen


def foreseen_table(found: Foreseen, *, budget: str) -> Table:
    """Return the table of a dry run.

    Args:
        found: what is foreseen.
        budget: in words.
    """
    columns = (cells.left("figure", "Figure"), Column("value", "Value"))
    rows = tuple((cells.word(name), Cell(value, text)) for name, value, text in _rows(found))
    rates = " and ".join(
        f"{count_text(rate)}FLOP/s in {dtype}"
        for rate, dtype in ((found.flops_per_s, found.dtype), (found.float64_flops_per_s, "float64"))
    )
    note = (
        f"Times at {rates}, measured now on {found.device_name}: the least, since nothing keeps its best rate "
        "throughout. Gains if time followed FLOPs: the most that can be had. No weight was read."
    )
    return Table("dry_run", f"Dry run. Budget: {budget}", columns, rows, note)


def _rows(found: Foreseen) -> Iterator[tuple[str, float, str]]:
    yield "layers that may change", found.layers, f"{found.layers}, {count_text(found.numbers).rstrip()} numbers"
    for name, seconds in _times(found):
        if seconds:
            yield name, seconds, time_text(1e9 * seconds)
    yield "memory at the peak, about", found.peak_bytes, bytes_text(found.peak_bytes)
    for kept, gain in found.gains:
        yield f"speedup at most, with {share_text(kept)} of the numbers", gain, f"{gain:.2f}x"
    if found.needed_kept is not None:
        can = f"{share_text(found.needed_kept)} at most" if found.needed_kept > 0 else "cannot be had by this"
        yield "numbers kept for the speedup asked for", found.needed_kept, can


def _times(found: Foreseen) -> tuple[tuple[str, float], ...]:
    models = "the model" if found.trials == 1 else f"each of up to {found.trials} models"
    return (
        ("timing single layers, about", found.timing_seconds),
        (f"calibrating on {found.tokens} tokens, at least", found.calibration_seconds),
        ("decomposing, at least", found.decomposition_seconds),
        (f"building and measuring {models}, at least", found.trial_seconds),
        ("recovery, at most", found.recovery_seconds),
    )
