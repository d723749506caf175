"""A GPU whose memory is nearly taken: a row that does not fit says so, whether that was foretold or not."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from soak.crashes.case import tests_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from narrows import Experiment
    from narrows._values import Report

SHORT, LONG, AFTER = 64, 65_536, 128  # tokens; the scores of the long ones take 8.6 GB in bfloat16
ROOM = 4 << 30  # bytes that are left: for ceilings and the short rows


def has_gpu() -> bool:
    """Say whether there is a CUDA device."""
    import torch

    return torch.cuda.is_available()


def foretold() -> list[str]:
    """Return what is wrong with a sweep while another process holds all memory of the device but 4 GiB."""
    with _taken():
        return _judged(_measured(), "GiB are free")


def untold() -> list[str]:
    """Return what is wrong with a sweep in this process, to which the allocator gives 4 GiB though more are free."""
    from narrows.bench import _sweep

    in_process = tests_module("bench.in_process").InProcess
    with mock.patch.object(_sweep, "Worker", in_process), _capped():
        return _judged(_measured(), "out of memory")


def _measured() -> Report:
    from narrows.bench import run_experiment

    with tempfile.TemporaryDirectory(prefix="soak-cuda-") as folder:
        return run_experiment(_experiment(), store=Path(folder) / "store.sqlite", minutes=0.2)


def _experiment() -> Experiment:
    from narrows import Experiment, WeightSource

    return Experiment(
        kind="bilinear",
        in_features=256,
        out_features=256,
        tokens=(SHORT, LONG, AFTER),
        ranks=(16,),
        weights=(WeightSource("gaussian", "gaussian"),),
        dtype="bfloat16",
        device="cuda",
    )


def _judged(report: Report, reason: str) -> list[str]:
    faults = []
    for row in report.rows:
        name = f"{row.tokens} tokens, rank {row.rank}, {row.variant}"
        if row.tokens == LONG and (row.status != "does not fit" or reason not in row.reason):
            faults.append(f"{name}: {row.status} ({row.reason}), not that it does not fit, with {reason!r}")
        if row.tokens != LONG and (row.status != "ok" or not row.samples_ns):
            faults.append(f"{name}: {row.status} ({row.reason}) with {len(row.samples_ns)} samples")
    return faults


@contextmanager
def _taken() -> Iterator[None]:
    """Hold the device's memory but `ROOM`; the measuring child is another process."""
    import torch

    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(free - ROOM, 0), dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del held
        torch.cuda.empty_cache()


@contextmanager
def _capped() -> Iterator[None]:
    """Let this process's allocator give out `ROOM` at most, which nobody sees beforehand."""
    import torch

    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(ROOM / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
