"""Measured time of every form that the layers of a model could take, on this machine."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from narrows._files import turn, write_text_atomic
from narrows._machine import machine
from narrows._values import DTYPE_BYTES
from narrows.bench._layers_grid import options_of
from narrows.bench._layers_record import LayerTimes
from narrows.bench._layers_run import measured
from narrows.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from os import PathLike

    from narrows.bench._layers_grid import Option
    from narrows.bench._layers_record import LayerTime
    from narrows.bench._layers_run import Group, Progress, Shape


def layer_times(
    shapes: Sequence[Shape],
    *,
    rows: Sequence[int],
    ranks: Mapping[Shape, Sequence[int]] | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    seconds: float = 60.0,
    store: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> LayerTimes:
    """Return the measured time of every form of every layer, eager, and how many times faster than dense it is.

    For each shape and number of rows, all forms and dense take one sample each in every round, in an order drawn anew;
    a speedup is the median of the ratios by round, with its 99 % interval. There are 8 rounds at least (fewer tell
    nothing at 99 %) and 32 at most; they end when every ratio is known to 2 % or the time is used up. Weights rotate
    over 3x the last-level cache, so that they are cold, as in a model whose layers do not fit it together; x is hot.
    On a GPU, a sample is a queue of calls between two events, launches included.

    Args:
        shapes: (D, E) of the layers; each is measured once.
        rows: T, rows of x in one call, as `Workload.rows`; each is measured.
        ranks: for each (D, E); None: the finest grid that the time allows, in steps of 32 or a power of two times it
            (finer where min(D, E) < 256). Ranks that would not make the layer smaller are left out.
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu", "cuda" or "cuda:1".
        seconds: for everything; 8 rounds of the coarsest grid may take longer.
        store: a JSON file that is written after each shape, and read to go on where a run was ended. What another
            machine, dtype or version measured there is replaced.
        progress: told what is measured, rounds done and rounds in all.

    Raises:
        InputError: no shape, sizes below 1, or an unknown dtype.
        DeviceError: the device is not there.
        ResourceError: too little memory for the weights that are rotated over.
        ImplementationError: a form gives a wrong result here.
        FileError: the store is no such file, or cannot be written.
    """
    wanted = _groups(shapes, rows, dtype)
    asked = None if ranks is None else {shape: options_of(*shape, _ranks(ranks, shape)) for shape in shapes}
    with _turn(store, progress):
        return _completed(wanted, asked, dtype=dtype, device=device, seconds=seconds, store=store, progress=progress)


def _completed(
    wanted: Sequence[Group],
    asked: Mapping[Shape, tuple[Option, ...]] | None,
    *,
    dtype: str,
    device: str,
    seconds: float,
    store: str | PathLike[str] | None,
    progress: Progress | None,
) -> LayerTimes:
    """Return the times of these groups, measured where the store has none of them."""
    times = _opened(store, dtype, device)
    todo = [group for group in wanted if not _known(times, group, asked)]
    run = measured(todo, asked, dtype=dtype, device=device, seconds=seconds, progress=progress)
    for group, found in run:
        others = tuple(one for one in times.times if (one.in_features, one.out_features, one.rows) != group)
        times = replace(times, times=(*others, *found))
        if store is not None:
            write_text_atomic(store, times.to_json())
    return replace(times, times=tuple(one for group in wanted for one in _known(times, group, asked)))


def _turn(store: str | PathLike[str] | None, progress: Progress | None) -> AbstractContextManager[None]:
    """Return the turn of those who measure into a store: two at once would disturb each other and lose rows."""
    if store is None:
        return nullcontext()

    def wait() -> None:
        if progress is not None:
            progress("waiting for another run that times layers", 0, 1)

    return turn(store, waiting=wait)


def _groups(shapes: Sequence[Shape], rows: Sequence[int], dtype: str) -> list[Group]:
    """Return every distinct (D, E, rows), in order."""
    if dtype not in DTYPE_BYTES:
        raise InputError(f"dtype={dtype!r} is not known. Use one of {', '.join(DTYPE_BYTES)}.")
    found = [(D, E, T) for T in dict.fromkeys(rows) for D, E in dict.fromkeys(shapes)]
    if not found or min(min(group) for group in found) < 1:
        raise InputError(f"shapes={list(shapes)} and rows={list(rows)}: give at least one of each, all at least 1.")
    return found


def _opened(store: str | PathLike[str] | None, dtype: str, device: str) -> LayerTimes:
    """Return what the store holds of this machine and dtype; nothing where it has none."""
    import narrows

    here = machine(device)
    empty = LayerTimes((), dtype, here.device, here.fingerprint, here.name, narrows.__version__)
    if store is None or not Path(store).exists():
        return empty
    found = LayerTimes.from_json(Path(store).read_bytes(), source=str(store))
    return found if replace(found, times=()) == empty else empty


def _known(times: LayerTimes, group: Group, asked: Mapping[Shape, tuple[Option, ...]] | None) -> tuple[LayerTime, ...]:
    """Return the times of a group if they hold everything that is asked; else nothing."""
    D, E, rows = group
    found = times.of(D, E, rows)
    if asked is None:
        return found
    held = {(one.form, one.rank): one for one in found}
    return tuple(held[option] for option in asked[D, E]) if held.keys() >= set(asked[D, E]) else ()


def _ranks(ranks: Mapping[Shape, Sequence[int]], shape: Shape) -> tuple[int, ...]:
    if shape not in ranks:
        raise InputError(f"ranks has no entry for (D, E) = {shape}; it has {', '.join(map(str, ranks)) or 'none'}.")
    return tuple(ranks[shape])
