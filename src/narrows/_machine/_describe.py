"""`machine()`: what identifies a device and the software that runs on it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import lru_cache

from narrows._machine import _cgroup, _gpu, _memory, _software, _system
from narrows._values import Machine

# Versions that change a time; a kernel or Python patch release does not.
TIMED_SOFTWARE = ("torch", "torch_cpu_capability", "blas", "triton", "cuda", "driver", "processor")


def machine(device: str = "cpu") -> Machine:
    """Return what this machine is; read once for a device and a number of threads.

    Args:
        device: "cpu", "cuda" or "cuda:1".

    Raises:
        DeviceError: the device is not there.
    """
    import torch

    if device.startswith("cuda"):
        device = f"cuda:{_gpu.index(device)}"
    else:
        _gpu.check_cpu(device)
    return _machine(device, torch.get_num_threads())


@lru_cache(maxsize=16)
def _machine(device: str, threads: int) -> Machine:
    cpu = _cpu(threads)
    found = cpu if device == "cpu" else _with_gpu(cpu, device)
    return replace(found, fingerprint=fingerprint(found))


def _cpu(threads: int) -> Machine:
    cpus = _system.usable_cpus()
    return Machine(
        fingerprint="",
        device="cpu",
        name=_system.processor_name(),
        cores=_system.physical_cores(cpus, quota=_cgroup.cpu_quota()),
        threads=threads,
        caches=_system.caches(cpus),
        features=_system.features(),
        memory_bytes=_memory.total_bytes(),
        software=_software.software(),
    )


def _with_gpu(cpu: Machine, device: str) -> Machine:
    """Return the GPU's record; the processor stays in it, since it sets the time of eager launches."""
    found = _gpu.describe(device)
    software = {**cpu.software, "processor": cpu.name, **found.pop("software")}
    return replace(cpu, device="cuda", software=software, **found)


def fingerprint(found: Machine) -> str:
    """Return 16 hex digits of the SHA-256 of everything in a record that changes a time.

    Memory counts in whole GiB: kernels reserve a few MiB more or less from boot to boot.
    """
    parts = (
        found.device,
        found.name,
        found.cores,
        found.threads,
        sorted(found.caches.items()),
        sorted(found.features),
        round(found.memory_bytes / (1 << 30)),
        found.num_multiprocessors,
        [found.software.get(name, "") for name in TIMED_SOFTWARE],
        *([found.software["precision switches"]] if "precision switches" in found.software else []),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
