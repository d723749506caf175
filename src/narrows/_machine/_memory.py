"""How much memory a device has free now."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from narrows._machine import _cgroup, _gpu
from narrows.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_LOOK = 64 << 20  # bytes: for less it is not worth 0.6 ms to look what is free


def available_bytes(device: str = "cpu") -> int:
    """Return the bytes that can still be allocated on a device, now.

    Args:
        device: "cpu" (the smallest of what the system, its control group and the limits of this process
            have left), "cuda" or "cuda:1".

    Raises:
        DeviceError: the device is not there.
    """
    if device.startswith("cuda"):
        return _gpu.free_bytes(device)
    _gpu.check_cpu(device)
    import psutil  # type: ignore[import-untyped]

    left = (int(psutil.virtual_memory().available), _cgroup.memory_left(), _limit_left())
    return min(one for one in left if one is not None)


def check_fits(num_bytes: int, device: str, *, what: str, advice: str) -> None:
    """Pass what fits the memory that a device has free now, before it is tried.

    Args:
        num_bytes: that it takes at its peak.
        device: "cpu", "cuda" or "cuda:1".
        what: takes it, in words that begin a sentence.
        advice: what to do where it does not fit, a sentence.

    Raises:
        ResourceError: it does not fit.
    """
    if num_bytes < LEAST_LOOK or not device.startswith(("cpu", "cuda")):  # of others nobody knows what is free
        return
    free = available_bytes(device)
    if num_bytes > free:
        raise ResourceError(
            f"{what} takes {num_bytes / 2**30:.2f} GiB of memory, {free / 2**30:.2f} GiB are free. {advice}"
        )


@contextmanager
def fitting(num_bytes: int, device: str, *, what: str, advice: str) -> Iterator[None]:
    """Run a block that takes so much memory, if that is free; say the same where it runs out all the same.

    Args, Raises:
        As `check_fits`.
    """
    check_fits(num_bytes, device, what=what, advice=advice)
    try:
        yield
    except (MemoryError, RuntimeError) as fault:
        if not is_shortage(fault):
            raise
        raise ResourceError(f"{what} did not fit the free memory ({first_line(fault)}). {advice}") from None


def first_line(fault: BaseException) -> str:
    """Return the first line of what an error says; its kind where it says nothing."""
    return str(fault).strip().partition("\n")[0] or type(fault).__name__


def is_shortage(fault: BaseException) -> bool:
    """Say whether an error means that memory ran out; torch raises a plain RuntimeError on a CPU."""
    is_named = isinstance(fault, MemoryError) or type(fault).__name__ == "OutOfMemoryError"
    return is_named or (isinstance(fault, RuntimeError) and "allocate memory" in str(fault))


def _limit_left() -> int | None:
    """Return the bytes of addresses that this process may still take (ulimit -v); None without a limit."""
    if sys.platform == "win32":
        return None
    import resource

    import psutil

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else max(limit - int(psutil.Process().memory_info().vms), 0)


def total_bytes() -> int:
    """Return the RAM this process may use: the system's, or its control group's where that is smaller."""
    import psutil

    total = int(psutil.virtual_memory().total)
    limit = _cgroup.memory_limit()
    return total if limit is None else min(total, limit)
