"""What a machine is and what it reaches, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from narrows.reporting._table import Cell, Column, Table
from narrows.reporting._text import bytes_text, count_text, listed, time_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from narrows._machine import DtypeProbe
    from narrows._values import Ceilings, Machine

_FACT_COLUMNS = (Column("what", "What", "left"), Column("value", "Value", "left"))


class KernelCheck(NamedTuple):
    """One implementation asked about one problem; `reason` is empty where it runs."""

    kernel: str
    problem: str
    reason: str


def machine_table(machine: Machine, available_bytes: int, conditions: Mapping[str, str]) -> Table:
    """Return what the machine is, its versions, and what it is doing now."""
    is_gpu = machine.device != "cpu"
    facts: dict[str, tuple[str | int, str]] = {"device": (machine.device, machine.device)}
    facts["GPU" if is_gpu else "processor"] = (machine.name, machine.name)
    facts["cores"] = (machine.cores, str(machine.cores))
    facts["threads"] = (machine.threads, str(machine.threads))
    if is_gpu:
        facts["multiprocessors"] = (machine.num_multiprocessors, str(machine.num_multiprocessors))
    facts |= {f"cache {name}": (size, bytes_text(size)) for name, size in machine.caches.items()}
    facts["features"] = (" ".join(machine.features), listed(machine.features))
    facts["memory"] = (machine.memory_bytes, bytes_text(machine.memory_bytes))
    facts["memory free now"] = (available_bytes, bytes_text(available_bytes))
    facts |= {name: (text, text) for name, text in {**machine.software, **conditions}.items()}
    facts["fingerprint"] = (machine.fingerprint, machine.fingerprint)
    rows = tuple((Cell(name, name), Cell(value, text)) for name, (value, text) in facts.items())
    return Table("machine", "This machine", _FACT_COLUMNS, rows)


def dtypes_table(probes: Sequence[DtypeProbe]) -> Table:
    """Return how fast each dtype's matmul is here."""
    columns = (
        Column("dtype", "Dtype", "left"),
        Column("flops_per_s", "FLOP/s"),
        Column("ratio_to_float32", "To float32"),
        Column("is_fast", "Fast here", "left"),
    )
    rows = tuple(
        (
            Cell(probe.dtype, probe.dtype),
            Cell(probe.flops_per_s, count_text(probe.flops_per_s)),
            Cell(probe.ratio, f"{probe.ratio:.3g}x"),
            Cell(probe.is_fast, "yes" if probe.is_fast else "no"),
        )
        for probe in probes
    )
    return Table("dtypes", "Dtypes", columns, rows, "Probed now with short matmuls: the best of several shapes.")


def ceilings_table(found: Sequence[Ceilings]) -> Table:
    """Return the ceilings, a row a dtype."""
    columns = (
        Column("dtype", "Dtype", "left"),
        Column("flops_per_s", "Matmul FLOP/s"),
        Column("flops_shape", "Reached at", "left"),
        Column("read_bytes_per_s", "Read B/s"),
        Column("write_bytes_per_s", "Write B/s"),
        Column("copy_bytes_per_s", "Copy B/s"),
        Column("hot_read_bytes_per_s", "Read, cached"),
        Column("hot_write_bytes_per_s", "Write, cached"),
        Column("eager_launch_ns", "Launch"),
        Column("graph_launch_ns", "In a graph"),
    )
    note = "Measured now; each is the best of several ways, sizes and repeats. Copy counts bytes read and written."
    return Table("ceilings", "Ceilings", columns, tuple(_ceilings_row(each) for each in found), note)


def _ceilings_row(found: Ceilings) -> tuple[Cell, ...]:
    shape = "x".join(str(size) for size in found.flops_shape)
    rates = (
        found.read_bytes_per_s,
        found.write_bytes_per_s,
        found.copy_bytes_per_s,
        found.hot_read_bytes_per_s,
        found.hot_write_bytes_per_s,
    )
    graph = time_text(found.graph_launch_ns) if found.graph_launch_ns else "-"
    return (
        Cell(found.dtype, found.dtype),
        Cell(found.flops_per_s, count_text(found.flops_per_s)),
        Cell(shape, shape),
        *(Cell(rate, count_text(rate)) for rate in rates),
        Cell(found.eager_launch_ns, time_text(found.eager_launch_ns)),
        Cell(found.graph_launch_ns, graph),
    )


def kernels_table(checks: Sequence[KernelCheck]) -> Table:
    """Return which implementations run and which refuse, with their reasons."""
    columns = (
        Column("implementation", "Implementation", "left"),
        Column("problem", "Problem", "left"),
        Column("runs", "Runs", "left"),
        Column("reason", "Why not", "left"),
    )
    rows = tuple(
        (
            Cell(check.kernel, check.kernel),
            Cell(check.problem, check.problem),
            Cell(not check.reason, "no" if check.reason else "yes"),
            Cell(check.reason, check.reason or "-"),
        )
        for check in checks
    )
    return Table("implementations", "Implementations", columns, rows)
