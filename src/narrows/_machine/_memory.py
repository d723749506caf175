"""How much memory a device has free now."""

from __future__ import annotations

from narrows._machine import _cgroup, _gpu


def available_bytes(device: str = "cpu") -> int:
    """Return the bytes that can still be allocated on a device, now.

    Args:
        device: "cpu" (the smaller of what the system and its control group have left), "cuda"
            or "cuda:1".

    Raises:
        DeviceError: the device is not there.
    """
    if device.startswith("cuda"):
        return _gpu.free_bytes(device)
    _gpu.check_cpu(device)
    import psutil  # type: ignore[import-untyped]

    free = int(psutil.virtual_memory().available)
    left = _cgroup.memory_left()
    return free if left is None else min(free, left)


def total_bytes() -> int:
    """Return the RAM this process may use: the system's, or its control group's where that is smaller."""
    import psutil

    total = int(psutil.virtual_memory().total)
    limit = _cgroup.memory_limit()
    return total if limit is None else min(total, limit)
