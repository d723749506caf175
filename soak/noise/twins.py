"""A variant against itself, really measured: narrows' own child, timer, rounds, store and verdict.

Only the names differ: what the sweep calls dense and what it calls thin is one and the same dense chain. A sweep
compares many lengths, each of them once.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from narrows._stats import compare_rows
from narrows._values import Experiment, WeightSource
from narrows.bench import _sweep
from narrows.bench._assemble import assemble
from narrows.bench._client import Worker
from narrows.bench._store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from narrows._stats import Ratio

LENGTHS = 100  # of one sweep: one comparison each
SECONDS = 0.4  # of sampling for each comparison at most, on average; 8 rounds of two samples of 6 ms take 0.1
# (D = E, first length): a call of a few microseconds on one thread, and one of about a millisecond on all of them.
SIZES = ((64, 1), (384, 257))
SAME = "same"


class Answers:
    """Makes a child's thin implementation its dense chain."""

    _dense = ""

    def ask(self, do: str, *, timeout: float, **request: Any) -> Any:
        """Return the child's answer; a request for the thin side asks for the dense one."""
        if "point" in request:
            request["point"] |= {"rank": None, "variant": self._dense}
        answer = super().ask(do, timeout=timeout, **request)  # type: ignore[misc]
        if do == "open":
            self._dense = answer["dense"][0]
            return {**answer, "dense": [self._dense], "thin": [SAME]}
        # A peak of memory is no part of a verdict: known, so that no second child measures it.
        return {**answer, "peak_memory_bytes": 0} if do == "check" else answer


class Twins(Answers, Worker):
    """A child in a process of its own, as every sweep has one."""


class TwinSweep(_sweep.Sweep):
    """A sweep that prepares nothing: without factors there is nothing to factorise, and no ceiling has a say."""

    def _prepare(self) -> None:
        self._say("nothing to prepare")


def ratios(seed: int, comparisons: int) -> Iterator[Ratio]:
    """Yield the ratio of every comparison, in sweeps of up to 100, of both sizes in turn."""
    for index, first in enumerate(range(0, comparisons, LENGTHS)):
        features, least = SIZES[index % len(SIZES)]
        count = min(LENGTHS, comparisons - first)
        yield from _sweep_of(_experiment(features, range(least, least + count), seed + index))


def _experiment(features: int, lengths: range, seed: int) -> Experiment:
    return Experiment(
        kind="linear",
        in_features=features,
        out_features=features,
        tokens=tuple(lengths),
        ranks=(1,),
        weights=(WeightSource("gaussian", "gaussian"),),
        seed=seed,
    )


def _sweep_of(experiment: Experiment) -> list[Ratio]:
    """Return the ratios of one sweep, one a length."""
    minutes = SECONDS * len(experiment.tokens) / 60
    with (
        tempfile.TemporaryDirectory(prefix="narrows-soak-") as folder,
        patch.object(_sweep, "Worker", Twins),
        Store(Path(folder) / "store.sqlite") as store,
        TwinSweep(experiment, store, minutes=minutes, progress=lambda _: None) as sweep,
    ):
        sweep.open()
        sweep.run()
        found = compare_rows(assemble(sweep, store))
    return [one.speedup for one in found if one.row.variant == SAME]
