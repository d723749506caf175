"""Peak memory of one call: the high-water mark of resident memory of a fresh process.

A process that has only imported torch, and never ran a parallel region, forks for every question;
the fork runs one call and reports how far its resident memory rose. Linux only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from narrows._machine._parent import die_with

if TYPE_CHECKING:
    from narrows._values import Problem
    from narrows.bench._point import Point


def _status_bytes(field: str) -> int:
    """Return a kB field of this process's status: VmHWM (high-water mark) or VmRSS (now)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _run_once(problem: Problem, point: Point) -> None:
    """Run one call on operands of ones: values do not change what memory is taken."""
    import torch

    from narrows import kernels
    from narrows._values import Factors

    dtype = getattr(torch, problem.dtype)
    heads = (problem.heads,) if problem.heads > 1 else ()

    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(*shape, dtype=dtype)

    x = ones(problem.tokens, problem.in_features)
    y = None if problem.other_tokens is None else ones(problem.other_tokens, problem.out_features)
    if point.variant == "given":
        rank, kv_heads = problem.given_rank or 1, problem.kv_heads or problem.heads
        left, right = ones(problem.heads, rank, problem.in_features), ones(kv_heads, rank, problem.out_features)
        kernels.Given.of(left, right, is_self=problem.is_self).run(x, y)
        return
    if point.rank is None:
        weight = ones(*heads, problem.out_features, problem.in_features)
        kernels.dense_run(point.variant, x, weight, y)
        return
    rank = point.rank
    kernel = kernels.kernel(problem.kind, point.variant)
    if kernel.name == "two" and problem.kind == "bilinear":
        pair = ones(*heads, rank, 2, problem.in_features)
        factors = Factors(pair[..., 0, :], pair[..., 1, :])
    else:
        factors = Factors(ones(*heads, rank, problem.in_features), ones(*heads, rank, problem.out_features))
    kernel.run(x, kernel.pack(factors), y)


def _settle(dtype: str) -> None:
    """Let the libraries take what they take once (threads, tables: 11 MB seen), before the count starts."""
    import torch

    square = torch.ones(512, 512, dtype=getattr(torch, dtype))
    torch.mm(square, square)


def _in_child(parent: int, write_end: int, problem: Problem, point: Point) -> None:
    die_with(parent)
    _settle(problem.dtype)
    before = _status_bytes("VmRSS")
    _run_once(problem, point)
    risen = max(_status_bytes("VmHWM") - before, 0)
    os.write(write_end, str(risen).encode())


def peak_bytes(experiment: str, point: dict[str, Any]) -> int | None:
    """Return the bytes that one call of a point adds, operands included; None when the fork failed.

    Args:
        experiment: JSON of the experiment.
        point: fields of the point.
    """
    import torch  # noqa: F401 (imported before the fork, so that its own memory is not counted)
    from pydantic import TypeAdapter

    from narrows import kernels  # noqa: F401
    from narrows._values import Experiment
    from narrows.bench._point import Point

    asked = TypeAdapter(Experiment).validate_json(experiment)
    where = Point(**point)
    read_end, write_end = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read_end)
            _in_child(parent, write_end, asked.problem(where.tokens), where)
            status = 0
        finally:
            os._exit(status)  # never run the parent's clean-up twice
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return int(text) if text else None
