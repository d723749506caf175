"""The public door of measuring: an experiment, or one problem, to a report."""

from __future__ import annotations

import math
import operator
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from narrows._values import Experiment, Report, WeightSource
from narrows.bench._assemble import assemble
from narrows.bench._store import Store
from narrows.bench._sweep import Progress, Sweep
from narrows.errors import InputError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from os import PathLike

    import torch

    from narrows._values import Cache, Mode, Problem

DEFAULT_MINUTES = 8.0
ORIGIN_SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
ORIGIN_FEATURES = 4096
ORIGIN_WEIGHTS = (
    WeightSource("gaussian", "gaussian"),
    WeightSource("power-law 0.7", "power", exponent=0.7),
    WeightSource("product of rank 128", "product", inner=128),
)


def default_store() -> Path:
    """Return the file where measurements of this user are kept."""
    from platformdirs import user_data_path

    return user_data_path("narrows") / "measurements.sqlite"


def origin_experiment(*, dtype: str = "float32", device: str = "cpu") -> Experiment:
    """Return the experiment that narrows grew from: S = (X W) X^T against S = (X A)(X B)^T, D = 4096.

    Three weights share the times and differ in error: Gaussian (the worst case), sigma_i = i^-0.7,
    and a product Wq^T Wk of true rank 128.
    """
    return Experiment(
        kind="bilinear",
        in_features=ORIGIN_FEATURES,
        out_features=ORIGIN_FEATURES,
        tokens=ORIGIN_SIZES,
        ranks=ORIGIN_SIZES,
        weights=ORIGIN_WEIGHTS,
        dtype=dtype,
        device=device,
    )


def run_experiment(
    experiment: Experiment,
    *,
    store: str | PathLike[str] | None = None,
    minutes: float = DEFAULT_MINUTES,
    progress: Callable[[Progress], None] = lambda _: None,
    fresh: bool = False,
) -> Report:
    """Measure what the store still lacks of an experiment and return the whole of it.

    Runs that share a store take turns: two that measure at once would disturb each other.

    Args:
        experiment: what to measure.
        store: SQLite file; default: one a user. What it holds is not measured again.
        minutes: time to check and sample in all, earlier runs included; factorising is not counted.
        progress: called before every step.
        fresh: forget first what the store holds of this experiment.

    Raises:
        ResourceError: the disk is full, broken or gone, or no child process can be started.
        NarrowsError: whatever is wrong with the experiment's files or sizes.
    """
    if not 0 < minutes < math.inf:
        raise InputError(f"minutes={minutes} must be a finite number > 0, e.g. 8 or 0.5.")
    path = default_store() if store is None else Path(store)
    text = f"another run measures into {path}: waiting for its end"
    with (
        Store(path, waiting=lambda: progress(Progress(text, 0.0, minutes * 60))) as opened,
        Sweep(experiment, opened, minutes=minutes, progress=progress) as sweep,
    ):
        sweep.open()
        if fresh:
            sweep.forget()
        sweep.run()
        return assemble(sweep, opened)


@contextmanager
def _in_file(weight: torch.Tensor | None) -> Iterator[WeightSource]:
    """Lend a tensor to the child as a file; content, not the path, is what results are keyed by."""
    if weight is None:
        yield WeightSource("gaussian", "gaussian")
        return
    from narrows._files import write_tensors_atomic

    with tempfile.TemporaryDirectory(prefix="narrows-") as folder:
        path = Path(folder) / "weight.safetensors"
        write_tensors_atomic(path, {"weight": weight.detach().cpu().contiguous()})
        yield WeightSource("weight", "file", path=str(path), tensor="weight")


def _whole(name: str, values: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        raise InputError(f"{name}={values!r} must be a sequence of whole numbers, e.g. (64, 128).") from None


def measure(
    problem: Problem,
    *,
    ranks: Sequence[int],
    weight: torch.Tensor | None = None,
    tokens: Sequence[int] = (),
    modes: Sequence[Mode] = ("eager",),
    caches: Sequence[Cache] = ("hot",),
    seed: int = 0,
    minutes: float = DEFAULT_MINUTES,
    store: str | PathLike[str] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Report:
    """Measure time, memory and error of a problem at several ranks, beside dense.

    Args:
        problem: shapes, dtype and device.
        ranks: each 1..min(D, E).
        weight: (E, D); default: Gaussian, the worst case for the error.
        tokens: lengths; default: the problem's own.
        modes, caches: conditions, each its own rows.
        seed: of made weights and inputs.
        minutes, store, progress: as in `run_experiment`.

    Raises:
        ShapeError: `weight` is not the (E, D) of the problem.
        InputError: a problem with heads, ranks or tokens that are no whole numbers, a weight that cannot be factorised.
        NarrowsError: as in `run_experiment`.
    """
    if problem.heads > 1 or problem.given_rank is not None:
        raise InputError(
            f"problem has heads={problem.heads}, given_rank={problem.given_rank}: a product is measured from files: "
            "narrows measure --weight FILE:TENSOR --weight-right FILE:TENSOR --heads H."
        )
    lengths, asked_ranks = _whole("tokens", tokens) or (problem.tokens,), _whole("ranks", ranks)
    if weight is not None:
        from narrows.decompose import check_operand

        check_operand("weight", weight)
    if weight is not None and tuple(weight.shape) != (problem.out_features, problem.in_features):
        raise ShapeError(
            f"weight {tuple(weight.shape)} must be (E, D) = ({problem.out_features}, {problem.in_features}) "
            f"for {problem}."
        )
    with _in_file(weight) as source:
        experiment = Experiment(
            kind=problem.kind,
            in_features=problem.in_features,
            out_features=problem.out_features,
            tokens=lengths,
            ranks=asked_ranks,
            weights=(source,),
            dtype=problem.dtype,
            device=problem.device,
            modes=tuple(modes),
            caches=tuple(caches),
            other_tokens=problem.other_tokens,
            seed=seed,
        )
        report = run_experiment(experiment, store=store, minutes=minutes, progress=progress)
    # The temporary file is gone: the report names the weight, not a path that no longer exists.
    sources = tuple(replace(s, path="", tensor="") for s in experiment.weights)
    return replace(report, experiment=replace(experiment, weights=sources))
