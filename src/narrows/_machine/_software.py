"""Versions of what runs a matmul."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata

# Variables that make a float32 matmul something less than float32 behind torch's back.
PRECISION_SWITCHES = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE")


def blas_name(build: str) -> str:
    """Return the matmul libraries that torch was built with ("MKL 2024.2, oneDNN 3.12.0").

    Args:
        build: the text of `torch.__config__.show()`.
    """
    found = []
    if mkl := re.search(r"Math Kernel Library Version ([\d.]+)", build):
        found.append(f"MKL {mkl[1]}")
    elif blas := re.search(r"BLAS_INFO=(\w+)", build):
        found.append({"open": "OpenBLAS", "accelerate": "Accelerate"}.get(blas[1], blas[1]))
    if dnn := re.search(r"MKL-DNN v([\d.]+)", build):
        found.append(f"oneDNN {dnn[1]}")
    return ", ".join(found) or "unknown"


def software() -> dict[str, str]:
    """Return name -> version of what a CPU matmul runs through."""
    import numpy as np
    import torch

    switches = " ".join(f"{name}={os.environ[name]}" for name in PRECISION_SWITCHES if name in os.environ)
    return {
        **({"precision switches": switches} if switches else {}),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "numpy": np.__version__,
        "blas": blas_name(torch.__config__.show()),
        "os": f"{platform.system()} {platform.release()}",
    }


def installed_version(package: str) -> str:
    """Return the version of an installed package; empty where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
