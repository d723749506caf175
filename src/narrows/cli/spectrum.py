"""`narrows spectrum`: error against rank of the weights in a file or a model's folder."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from narrows.cli._output import emit, output_options
from narrows.cli._ranges import parse_range
from narrows.errors import FileError, InputError, ResourceError

if TYPE_CHECKING:
    import numpy as np

    from narrows._files import Layout
    from narrows.reporting._spectrum import LayerSpectrum

PATTERN = "re:"
FIRST_RANK = 16
MATRIX = 2  # dimensions


EXAMPLE = """\b
Example:
  narrows spectrum model.safetensors --layer re:q_proj --rank 16..512 --html spectrum.html
"""


@click.command(epilog=EXAMPLE, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("source", metavar="FILE|FOLDER", type=click.Path(path_type=Path))
@click.option("--layer", "layers", metavar="NAME|re:PATTERN", multiple=True, help="Which tensors; repeat for more.")
@click.option("--rank", metavar="RANGE", help="Ranks to show. Default: doubling from 16.")
@click.option("--layout", type=click.Choice(["out-in", "in-out"]), default="out-in", help="in-out: GPT-2's Conv1D.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a chart of every layer, one self-contained file.")
@click.option("--npz", type=click.Path(path_type=Path), help="Write singular values and errors as NumPy arrays.")
@output_options
def command(
    *,
    source: Path,
    layers: tuple[str, ...],
    rank: str | None,
    layout: str,
    html: Path | None,
    npz: Path | None,
    output_format: str,
) -> None:
    """Show the error of every rank, for each 2-D weight of a safetensors file, a .npy file or a model's folder.

    No factors of a rank have a smaller error than the one shown (exact SVD). PATTERN is a regular
    expression that may match anywhere in a name.

    \b
    RANGE: A..B doubles from A through B; commas list values.
    """
    ranks = None if rank is None else parse_range(rank, "--rank")
    for option, path in (("--html", html), ("--npz", npz)):
        _check_folder(option, path)
    found = _spectra(source, _chosen(source, layers), cast("Layout", layout), exact=frozenset(layers))
    shown = _ranks(ranks, found)
    _write(found, shown, source=source, html=html, npz=npz)
    from narrows.reporting._spectrum import spectrum_row_table, spectrum_tables

    emit(spectrum_row_table(found, shown) if output_format == "csv" else spectrum_tables(found, shown), output_format)


def _check_folder(option: str, path: Path | None) -> None:
    """Refuse a path that could not be written, before minutes are spent."""
    if path is not None and not path.absolute().parent.is_dir():
        raise InputError(f"{option}={path}: its folder does not exist. Make it first.")


def _chosen(source: Path, layers: tuple[str, ...]) -> list[str]:
    """Return the names of the 2-D tensors that the options ask for, in the file's order."""
    from narrows._files import tensor_shapes

    matrices = [name for name, shape in tensor_shapes(source).items() if len(shape) == MATRIX and min(shape) > 0]
    if not matrices:
        raise FileError(f"{source} holds no 2-D tensor, so no weight to factorise.")
    wanted: set[str] = set()
    for layer in layers:
        wanted |= _matching(layer, matrices, source)
    return [name for name in matrices if name in wanted or not layers]


def _matching(layer: str, matrices: list[str], source: Path) -> set[str]:
    from narrows._files import missing_name

    if layer.startswith(PATTERN):
        try:
            expression = re.compile(layer.removeprefix(PATTERN))
        except re.error as fault:
            raise InputError(f"--layer={layer!r} is not a regular expression: {fault}.") from None
        found = {name for name in matrices if expression.search(name)}
    else:
        found = {layer} & set(matrices)
    if not found:
        raise InputError(missing_name("2-D tensor", layer.removeprefix(PATTERN), tuple(matrices), f"--layer: {source}"))
    return found


def _spectra(source: Path, names: list[str], layout: Layout, *, exact: frozenset[str]) -> list[LayerSpectrum]:
    """Factorise each tensor; what cannot be is passed over aloud, unless it is asked for by name or the only one."""
    found = []
    with click.progressbar(
        names, label="factorising", file=sys.stderr, item_show_func=lambda name: name, hidden=len(names) == 1
    ) as bar:
        for name in bar:
            layer = _spectrum(source, name, layout, is_asked_for=name in exact or len(names) == 1)
            if layer is not None:
                found.append(layer)
    if not found:
        raise FileError(f"{source}: none of {len(names)} 2-D tensors could be factorised.")
    return found


def _spectrum(source: Path, name: str, layout: Layout, *, is_asked_for: bool) -> LayerSpectrum | None:
    from narrows._files import read_tensor
    from narrows.decompose import factorize
    from narrows.reporting._spectrum import LayerSpectrum

    try:
        weight_ED = read_tensor(source, name, layout=layout)
        if not weight_ED.is_floating_point() and not is_asked_for:
            click.echo(f"passed over {name}: {weight_ED.dtype}", err=True)
            return None
        certificate = factorize(weight_ED, method="exact").certificate
    except (InputError, ResourceError) as fault:
        if not is_asked_for:
            click.echo(f"passed over {name}: {fault}", err=True)
            return None
        raise type(fault)(f"{name or source}: {fault}") from None
    assert certificate is not None
    E, D = weight_ED.shape
    return LayerSpectrum(name or source.stem, E, D, certificate)


def _ranks(asked: tuple[int, ...] | None, found: list[LayerSpectrum]) -> tuple[int, ...]:
    largest = max(layer.certificate.rank for layer in found)
    if asked is None:
        first = min(FIRST_RANK, largest)
        return tuple(first << power for power in range(largest.bit_length()) if first << power <= largest)
    if min(asked) > largest:
        raise InputError(f"--rank: {min(asked)} is above {largest}, the largest rank of these weights (min(D, E)).")
    return tuple(rank for rank in asked if rank <= largest)


def _write(
    found: list[LayerSpectrum], ranks: tuple[int, ...], *, source: Path, html: Path | None, npz: Path | None
) -> None:
    from narrows._files import write_bytes_atomic, write_text_atomic
    from narrows.reporting._spectrum import spectrum_arrays, spectrum_html

    if html is not None:
        write_text_atomic(html, spectrum_html(found, source.name))
        click.echo(f"wrote {html}", err=True)
    if npz is not None:
        write_bytes_atomic(npz, _npz(spectrum_arrays(found, ranks)))
        click.echo(f"wrote {npz}", err=True)


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
