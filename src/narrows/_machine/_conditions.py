"""What a reader of times should know of the moment they were taken in."""

from __future__ import annotations

import os

from narrows._machine import _gpu


def conditions(device: str = "cpu") -> dict[str, str]:
    """Return what the machine is doing now: load, CPU frequency; GPU clocks, power, temperature.

    Args:
        device: "cpu", "cuda" or "cuda:1".

    Raises:
        DeviceError: the device is not there.
    """
    if not device.startswith("cuda"):
        _gpu.check_cpu(device)
        return _cpu()
    return {**_cpu(), **_gpu.conditions(device)}


def _cpu() -> dict[str, str]:
    import psutil  # type: ignore[import-untyped]

    found = {}
    if hasattr(os, "getloadavg"):
        found["load average"] = " ".join(f"{load:.2f}" for load in os.getloadavg())
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    if frequency is not None and frequency.current:
        found["CPU frequency"] = f"{frequency.current:.0f} MHz"
    return found
