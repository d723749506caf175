"""`narrows doctor`: what this machine is, what it reaches, and which implementations run on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from narrows.cli._output import emit, output_options

if TYPE_CHECKING:
    from narrows._values import Problem
    from narrows.reporting import Table

TOKENS, FEATURES, OTHER_TOKENS = 64, 4096, 128
CEILING_SECONDS = 3.0


EXAMPLE = """\b
Example:
  narrows doctor --dtype float32,bfloat16
"""


@click.command(epilog=EXAMPLE, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@click.option("--dtype", "dtypes", default="float32", show_default=True, help="Ceilings of these; commas list several.")
@output_options
def command(*, device: str, dtypes: str, output_format: str) -> None:
    """Show what this machine is, which dtypes are fast on it, what it reaches, and what runs.

    Everything is measured now, in about 3 seconds a dtype.
    """
    from narrows._values import dtype_name

    names = list(dict.fromkeys(dtype_name(name.strip()) for name in dtypes.split(",")))
    emit(_tables(device, names), output_format)


def _tables(device: str, dtypes: list[str]) -> list[Table]:
    from narrows._machine import available_bytes, ceilings, conditions, machine, probe_dtypes
    from narrows.reporting._doctor import ceilings_table, dtypes_table, machine_table

    about = machine_table(machine(device), available_bytes(device), conditions(device) | _tuned(device))
    probes = dtypes_table(probe_dtypes(device))
    reached = ceilings_table([ceilings(device, dtype, seconds=CEILING_SECONDS) for dtype in dtypes])
    return [about, probes, reached, _kernels_table(device, dtypes)]


def _tuned(device: str) -> dict[str, str]:
    """Return how many tuned choices a GPU has, and where from; nothing for a CPU."""
    if not device.startswith("cuda"):
        return {}
    from narrows.bench import device_index
    from narrows.kernels import tuned

    return {"tuned choices": tuned.summary(tuned.known(device_index(device)))}


def _problems(device: str, dtype: str) -> tuple[Problem, ...]:
    """Return one problem of each form that the operations know."""
    from narrows._values import Problem

    return (
        Problem("linear", TOKENS, FEATURES, FEATURES, dtype=dtype, device=device),
        Problem("bilinear", TOKENS, FEATURES, FEATURES, dtype=dtype, device=device),
        Problem("bilinear", TOKENS, FEATURES, FEATURES, other_tokens=OTHER_TOKENS, dtype=dtype, device=device),
    )


def _kernels_table(device: str, dtypes: list[str]) -> Table:
    from narrows.kernels import kernels_for
    from narrows.reporting._doctor import KernelCheck, kernels_table

    problems = [problem for dtype in dtypes for problem in _problems(device, dtype)]
    return kernels_table(
        [
            KernelCheck(kernel.name, _words(problem), kernel.refuses(problem))
            for problem in problems
            for kernel in kernels_for(problem.kind)
        ]
    )


def _words(problem: Problem) -> str:
    form = {"linear": "linear", "bilinear": "bilinear, Y = X"}[problem.kind]
    return f"{form if problem.is_self else 'bilinear, Y of its own'}, {problem.dtype}"
