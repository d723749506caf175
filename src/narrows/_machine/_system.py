"""The processor as Linux shows it in /proc and /sys; every function takes the root, so tests can make one."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

ROOT = Path("/")
# What changes the speed of a floating-point matmul; names of /proc/cpuinfo.
FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16", "asimd", "sve", "sve2", "bf16")
FEATURE_NAMES = {"asimd": "neon"}
SIZE_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def read_text(path: Path) -> str:
    """Return the text of a system file, stripped; empty where it is missing or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cpuinfo(key: str, root: Path) -> str:
    """First value of a key of /proc/cpuinfo."""
    for line in read_text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def processor_name(root: Path = ROOT) -> str:
    """Return the model of the processor, as the system names it."""
    return _cpuinfo("model name", root) or platform.processor() or platform.machine()


def features(root: Path = ROOT) -> tuple[str, ...]:
    """Return the instruction sets that matter to a matmul and are there, in a fixed order."""
    there = set((_cpuinfo("flags", root) or _cpuinfo("Features", root)).split())
    return tuple(FEATURE_NAMES.get(name, name) for name in FEATURES if name in there)


def usable_cpus() -> tuple[int, ...]:
    """Return the numbers of the logical CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def physical_cores(cpus: tuple[int, ...], *, quota: float | None = None, root: Path = ROOT) -> int:
    """Return how many cores `cpus` lie on; threads of one core count once.

    Args:
        cpus: logical CPUs.
        quota: CPUs a control group allows (2.5 counts as 3); None: no limit.
        root: of the file system.
    """
    cores = set()
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        core = read_text(topology / "core_id")
        cores.add((read_text(topology / "physical_package_id"), core) if core else ("", f"cpu{cpu}"))
    allowed = len(cores) if quota is None else math.ceil(quota)
    return max(1, min(len(cores), allowed))


def caches(cpus: tuple[int, ...], root: Path = ROOT) -> dict[str, int]:
    """Return bytes of cache by level ("L1d", "L2", "L3") that `cpus` reach, instances added up."""
    instances: dict[tuple[str, str], int] = {}
    for cpu in cpus:
        for index in sorted((root / f"sys/devices/system/cpu/cpu{cpu}/cache").glob("index*")):
            kind, size = read_text(index / "type"), read_text(index / "size")
            if kind == "Instruction" or size[-1:] not in SIZE_UNITS:
                continue
            level = f"L{read_text(index / 'level')}" + ("d" if kind == "Data" else "")
            instances[level, read_text(index / "shared_cpu_list")] = int(size[:-1]) * SIZE_UNITS[size[-1]]
    totals: dict[str, int] = {}
    for (level, _), size_bytes in sorted(instances.items()):
        totals[level] = totals.get(level, 0) + size_bytes
    return totals
