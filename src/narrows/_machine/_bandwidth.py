"""Ways to read, write and copy a buffer; which one is fastest differs from machine to machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from narrows._machine._stopwatch import Work

if TYPE_CHECKING:
    from narrows._machine._stopwatch import Stopwatch

PASSES = 16  # over a small set in one call, so that starting threads or a kernel does not count


def readers(x: torch.Tensor) -> list[Work]:
    """Return ways to read a flat float32 buffer once (sum, largest, dot with itself)."""
    num_bytes = x.numel() * x.element_size()
    calls = (x.sum, x.amax, x.view(torch.int64).amax, lambda: torch.dot(x, x))
    return [Work(call, num_bytes) for call in calls]


def hot_readers(x: torch.Tensor, *, threads: int) -> list[Work]:
    """Return ways to read a small flat float32 buffer that stays in a cache."""
    passes = max(PASSES, threads)
    repeated = x.expand(passes, -1)
    num_bytes = x.numel() * x.element_size() * passes
    return [*readers(x), Work(lambda: repeated.sum(1), num_bytes), Work(lambda: repeated.amax(1), num_bytes)]


def writers(y: torch.Tensor) -> list[Work]:
    """Return ways to overwrite a flat float32 buffer (fill, zero, copy of one row again and again)."""
    num_bytes = y.numel() * y.element_size()
    one = torch.ones(1, dtype=y.dtype, device=y.device)
    width = min(1024, y.numel())
    rows = y[: y.numel() // width * width].view(-1, width)
    row = torch.ones(width, dtype=y.dtype, device=y.device)
    return [
        Work(lambda: y.fill_(1.0), num_bytes),
        Work(y.zero_, num_bytes),
        Work(lambda: y.copy_(one.expand_as(y)), num_bytes),
        Work(lambda: rows.copy_(row.expand_as(rows)), rows.numel() * rows.element_size()),
    ]


def buffer(num_bytes: int, stopwatch: Stopwatch) -> torch.Tensor:
    """Return a flat float32 buffer of ones, of whole 8-byte words."""
    return torch.ones(max(num_bytes // 8, 1) * 2, dtype=torch.float32, device=stopwatch.device)
