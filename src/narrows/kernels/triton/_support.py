"""Whether own kernels can run somewhere, said without importing Triton."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from narrows.kernels._config import Overlap

Order = Literal["", "wait", "early"]

DTYPES = ("float32", "float16", "bfloat16")
LEAST_CAPABILITY = (8, 0)  # bfloat16 matrix instructions
OVERLAP_CAPABILITY = (9, 0)  # programmatic dependent launch


def is_interpreted() -> bool:
    """Return whether Triton's interpreter stands in for a device; Triton reads this when it is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def unsupported(dtype: str, device: str) -> str:
    """Return why own kernels cannot run this dtype on this device; empty when they can.

    Args:
        dtype: "bfloat16", ...
        device: "cuda", "cuda:1"; "meta" is not refused: nothing runs there.
    """
    if dtype not in DTYPES:
        return f"triton runs {', '.join(DTYPES)}; here dtype={dtype}"
    if torch.version.hip is not None:
        return f"triton's kernels here are written for NVIDIA devices; this is torch for ROCm {torch.version.hip}"
    if find_triton() is None:
        return "triton is not installed"
    if is_interpreted():
        is_wrong = dtype == "bfloat16"
        return "Triton's interpreter multiplies the bits of bfloat16 as if they were numbers" if is_wrong else ""
    return _refuses_device(device)


@lru_cache(maxsize=1)
def find_triton() -> object | None:
    """Return where the package triton is; None when it is not installed."""
    return find_spec("triton")


def order(overlap: Overlap, device: torch.device, *, is_first: bool) -> Order:
    """Return how a launch follows the one before it: "" after it, else while it drains (`device.order`)."""
    if overlap == "none" or (is_first and overlap == "last") or not can_overlap(device):
        return ""
    return "early" if overlap == "early" else "wait"


@lru_cache(maxsize=64)
def can_overlap(device: torch.device) -> bool:
    """Return whether launches on this device may start before the one before them has ended."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= OVERLAP_CAPABILITY


def _refuses_device(device: str) -> str:
    if device == "meta":
        return ""
    if not device.startswith("cuda"):
        return f"triton runs on a CUDA device; this problem is on {device}"
    if not torch.cuda.is_available():
        return f"triton runs on a CUDA device; this problem is on {device}, and torch finds none"
    return _refuses_capability(device)


@lru_cache(maxsize=64)
def _refuses_capability(device: str) -> str:
    capability = torch.cuda.get_device_capability(device)
    if capability >= LEAST_CAPABILITY:
        return ""
    least, seen = (".".join(map(str, version)) for version in (LEAST_CAPABILITY, capability))
    return f"triton needs compute capability {least}; {device} has {seen}"


def matmul_precision(dtype: torch.dtype) -> str:
    """Return Triton's `input_precision`: "tf32" only for float32 where torch's own matmuls were set to it."""
    if dtype != torch.float32:
        return "ieee"
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # torch 2.9; the older name raises once the newer one was used
        return "tf32" if matmul.fp32_precision == "tf32" else "ieee"
    return "tf32" if matmul.allow_tf32 else "ieee"
