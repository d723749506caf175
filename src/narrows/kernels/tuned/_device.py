"""What a CUDA device is, and what runs on it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from narrows._machine import machine
from narrows.kernels.tuned._records import Silicon, Software

DEVICE_CODE = Path(__file__).parents[1] / "triton" / "device"


@lru_cache(maxsize=64)
def silicon(device: int) -> Silicon:
    """Return what a CUDA device is.

    Raises:
        DeviceError: it is not there.
    """
    found = machine(f"cuda:{device}")
    return Silicon(
        name=found.name,
        capability=found.features[0],
        num_multiprocessors=found.num_multiprocessors,
        l2_bytes=found.caches["L2"],
        memory_gib=round(found.memory_bytes / (1 << 30)),
        is_mig=" MIG " in found.name,  # CUDA names a part "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
    )


@lru_cache(maxsize=64)
def software(device: int) -> Software:
    """Return the versions that run on a CUDA device.

    Raises:
        DeviceError: it is not there.
    """
    found = machine(f"cuda:{device}").software
    torch, triton, cuda, driver = (found.get(name, "") for name in ("torch", "triton", "cuda", "driver"))
    return Software(torch, triton, cuda, driver, source_hash(DEVICE_CODE))


def source_hash(folder: Path) -> str:
    """Return 16 hex digits of the SHA-256 of a folder's Python files, names included."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
