"""How much memory one call takes at its peak: the device's own count, or the rise of resident memory."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

CUDA_SOURCE = "weights and cache, and what torch's allocator had allocated at most during one call beyond them"
CPU_SOURCE = "weights and cache, and how far one call raised this process's resident memory (VmHWM)"
NO_SOURCE = "not measured: on a CPU it is read from /proc/self, which this system does not have or does not let write"


def memory_source(device: torch.device) -> str:
    """Return what a peak of this device is, in words."""
    if device.type == "cuda":
        return CUDA_SOURCE
    return CPU_SOURCE if _reset_high_water() else NO_SOURCE


def added_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """Return the bytes that one call adds at its peak to what was there before; None: not measured."""
    return _added_cuda(call, device) if device.type == "cuda" else _added_cpu(call)


def _added_cuda(call: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


def _added_cpu(call: Callable[[], object]) -> int | None:
    """Linux: give freed memory back to the system, set the high-water mark to what is resident, call."""
    _trim()
    if not _reset_high_water():
        return None
    before = _status_bytes("VmRSS")
    call()
    return max(_status_bytes("VmHWM") - before, 0)


def _trim() -> None:
    """Memory that was freed but kept would be used again, and then not be seen to rise."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other libraries keep less
        if trim is not None:
            trim(0)


def _reset_high_water() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _status_bytes(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in text.splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024
