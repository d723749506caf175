"""What an NVIDIA GPU is, through torch and, where it is installed, NVIDIA's management library."""

from __future__ import annotations

import importlib
import re
from typing import Any

from narrows._machine._software import installed_version
from narrows.errors import DeviceError

# Bits of nvmlDeviceGetCurrentClocksEventReasons that say the GPU is held back.
THROTTLES = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}


def check_cpu(device: str) -> None:
    """Raise DeviceError for a device that is neither a CPU nor a CUDA GPU."""
    if device != "cpu":
        raise unknown(device)


def unknown(device: str) -> DeviceError:
    """Return the error for a device that has no such name anywhere."""
    return DeviceError(f"device={device!r} is not known. Use 'cpu', 'cuda' or 'cuda:1'.")


def index(device: str) -> int:
    """Return the number of a CUDA device that is there.

    Args:
        device: "cuda" (the current one) or "cuda:1".

    Raises:
        DeviceError: no such GPU; the text says what was found and what to do.
    """
    import torch

    named = re.fullmatch(r"cuda(?::([0-9]{1,4}))?", device)
    if named is None:
        raise unknown(device)
    if not torch.cuda.is_available():
        built = torch.version.cuda
        found = f"torch {torch.__version__} is built for CUDA {built} but sees no GPU" if built else ""
        found = found or f"torch {torch.__version__} is built without CUDA"
        raise DeviceError(
            f"device={device!r} is not there: {found}. Use device='cpu', or install a CUDA build of torch "
            "on a machine with an NVIDIA driver."
        )
    count = torch.cuda.device_count()
    chosen = int(named[1]) if named[1] else torch.cuda.current_device()
    if chosen >= count:
        raise DeviceError(f"device={device!r} is not there: {count} GPU(s) found. Use 'cuda:0'..'cuda:{count - 1}'.")
    return chosen


def describe(device: str) -> dict[str, Any]:
    """Return what `Machine` says of a GPU: name, caches, features, memory, multiprocessors, software."""
    import torch

    properties = torch.cuda.get_device_properties(index(device))
    return {
        "name": properties.name,
        "caches": {"L2": int(properties.L2_cache_size)},
        "features": (f"sm_{properties.major}{properties.minor}",),
        "memory_bytes": int(properties.total_memory),
        "num_multiprocessors": int(properties.multi_processor_count),
        "software": _software(),
    }


def _software() -> dict[str, str]:
    import torch

    versions = {"cuda": torch.version.cuda or "", "triton": installed_version("triton"), "driver": _driver()}
    return {name: version for name, version in versions.items() if version}


def free_bytes(device: str) -> int:
    """Return the bytes free on a GPU now, what torch's allocator keeps cached included.

    Raises:
        DeviceError: the GPU is not there.
    """
    import torch

    number = index(device)
    free, _ = torch.cuda.mem_get_info(number)
    return int(free + torch.cuda.memory_reserved(number) - torch.cuda.memory_allocated(number))


def _nvml() -> Any:
    """NVIDIA's management library, ready; None where the package or the driver is missing."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


def _driver() -> str:
    nvml = _nvml()
    return "" if nvml is None else str(nvml.nvmlSystemGetDriverVersion())


def conditions(device: str) -> dict[str, str]:
    """Return clocks, power, temperature and what holds the GPU back, now; one reason why not otherwise."""
    import torch

    number = index(device)
    nvml = _nvml()
    if nvml is None:
        return {"GPU clocks": "not read: install nvidia-ml-py"}
    try:
        return _read(nvml, str(torch.cuda.get_device_properties(number).uuid))
    except nvml.NVMLError as fault:  # a part of a GPU (MIG) has no clocks of its own
        return {"GPU clocks": f"not read: {fault}"}


def _read(nvml: Any, uuid: str) -> dict[str, str]:
    # By UUID: torch's numbers follow CUDA_VISIBLE_DEVICES, the management library's do not.
    handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    held = [name for bit, name in THROTTLES.items() if reasons & bit]
    return {
        "GPU clock": f"{nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)} MHz",
        "GPU memory clock": f"{nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)} MHz",
        "GPU power": f"{nvml.nvmlDeviceGetPowerUsage(handle) / 1000:.0f} W",
        "GPU temperature": f"{nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)} C",
        "GPU held back by": ", ".join(held) or "nothing",
    }
