"""Sweeps, refusals, peaks and a GPU that is nearly full: how each is counted."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soak._figure import Figure
from soak.concurrency.children import pool
from soak.resources import cuda, peak, refused
from soak.resources.rows import swept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import ProcessPoolExecutor

PART = "resources"
SWEEPS = 120  # in the long run
SHOWN = 5  # failures of a figure that are listed
MARGIN = 1.15  # times what is foretold of a row: what `narrows measure` itself leaves free
PARENT_BYTES = 16 << 20  # by which a process may grow that measures scores of 64 MiB in a child
COMPRESS_MARGIN, LIBRARIES = 1.15, 64 << 20  # beside the model and its moments: tokenizer, code that is first run


def figures(seed: int, scale: float, jobs: int) -> Iterator[Figure]:
    """Yield the figures of this part as they come."""
    with tempfile.TemporaryDirectory(prefix="soak-resources-") as folder, pool(Path(folder), jobs) as executor:
        yield sweep_figure(executor, seed, max(1, round(SWEEPS * scale)))
        if sys.platform == "linux":
            giants = executor.submit(refused.made, Path(folder)).result()
            yield from refusal_figures(executor, giants)
            yield from peak_figures(executor, Path(folder))
        else:
            yield hidden("memory that does not fit, and its peaks", "as foretold", "limits and peaks are Linux's here")
    yield from cuda_figures()


def sweep_figure(executor: ProcessPoolExecutor, seed: int, number: int) -> Figure:
    """Return how sweeps went in which a share of the rows met a fate."""
    done = list(executor.map(swept, [sweep_seed(seed, i) for i in range(number)]))
    lines = [
        f"{fault}   [python -m soak.resources {i} --seed {seed}]" for i, faults in enumerate(done) for fault in faults
    ]
    name = "sweeps in which rows are killed, run out of memory or break (5 of 16 rows)"
    asked = "those rows say why, and every other row is measured"
    return figure(name, asked, f"{sum(map(bool, done))} sweeps went wrong", lines, number)


def sweep_seed(seed: int, number: int) -> str:
    """Return the seed of one sweep."""
    return f"{seed} sweep {number}"


def refusal_figures(executor: ProcessPoolExecutor, giants: Path) -> Iterator[Figure]:
    """Yield how it is refused, or survived, what does not fit."""
    for cases, is_blind, name, asked in (
        (
            refused.FORETOLD,
            False,
            "what does not fit the memory, where that is known",
            "refused before it is tried, with the bytes it takes and those that are free; other rows and layers go on",
        ),
        (refused.UNTOLD, True, "the same where the free memory is told wrong", "one clear error, and the same goes on"),
    ):
        done = list(executor.map(partial(refused.refused, folder=giants, is_blind=is_blind), cases))
        lines = [fault for faults in done for fault in faults]
        yield figure(name, asked, f"{sum(map(bool, done))} went wrong ({', '.join(cases)})", lines, len(cases))


def peak_figures(executor: ProcessPoolExecutor, place: Path) -> Iterator[Figure]:
    """Yield measured peaks beside what was foretold."""
    ratios = executor.submit(peak.row_ratios).result()
    highest = max(ratios, key=lambda name: ratios[name])
    lines = [f"{name}: {ratio:.3f}" for name, ratio in ratios.items() if ratio > MARGIN]
    reached = f"at most {ratios[highest]:.3f} times ({highest})"
    yield figure("peak of a row of 64 MiB or more", f"at most {MARGIN} times foretold", reached, lines, len(ratios))

    grown = executor.submit(peak.parent_growth).result()
    name, asked = "growth of the process that owns the store, scores of 64 MiB", f"at most {PARENT_BYTES >> 20} MiB"
    reached = f"{grown / 2**20:.1f} MiB"
    yield figure(name, asked, reached, [reached] if grown > PARENT_BYTES else [], 1)

    taken, told = executor.submit(peak.compression, executor.submit(peak.wide_made, place).result()).result()
    name = "peak of `narrows compress` beside its dry run"
    asked = f"at most {COMPRESS_MARGIN} times foretold, and {LIBRARIES >> 20} MiB"
    reached = f"{taken / 2**20:.0f} MiB, {told / 2**20:.0f} MiB were foretold"
    yield figure(name, asked, reached, [reached] if taken > COMPRESS_MARGIN * told + LIBRARIES else [], 1)


def cuda_figures() -> Iterator[Figure]:
    """Yield how a sweep goes on a GPU whose memory is nearly taken."""
    asked = "its rows say so, those before and after it are measured"
    looks: dict[str, Callable[[], list[str]]] = {
        "a row that does not fit a GPU, foretold": cuda.foretold,
        "a row that does not fit a GPU, CUDA out of memory": cuda.untold,
    }
    for name, look in looks.items():
        if not cuda.has_gpu():
            yield hidden(name, asked, "there is no CUDA device")
            continue
        found = look()
        yield figure(name, asked, f"{len(found)} faults", found, 1)


def figure(name: str, asked: str, reached: str, faults: Sequence[str], count: int) -> Figure:
    """Return a figure that failed where there are faults."""
    return Figure(
        part=PART,
        name=name,
        asked=asked,
        reached=reached,
        status="failed" if faults else "ok",
        count=count,
        details=tuple(faults[:SHOWN]),
    )


def hidden(name: str, asked: str, why: str) -> Figure:
    """Return a figure of what this machine cannot show."""
    return Figure(part=PART, name=name, asked=asked, reached=why, status="not shown")
