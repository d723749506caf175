"""Which dtypes are fast here: measured, since hardware that emulates one can be hundreds of times slower."""

from __future__ import annotations

from dataclasses import dataclass

from narrows._machine._stopwatch import stopwatch
from narrows._values import DTYPE_BYTES

# Of float32's rate. float64 in hardware does half of it, emulated dtypes 0.16 or less.
FAST = 0.25


@dataclass(frozen=True, slots=True)
class DtypeProbe:
    """How fast one dtype's matmul is on a device.

    Attributes:
        dtype: its plain name.
        flops_per_s: best of a short probe.
        ratio: to float32's, measured in the same call.
        is_fast: the ratio is at least 0.25: computing in it is not emulated.
    """

    dtype: str
    flops_per_s: float
    ratio: float
    is_fast: bool


def probe_dtypes(device: str = "cpu", *, seconds: float = 0.15) -> tuple[DtypeProbe, ...]:
    """Return a probe of float32, bfloat16, float16 and float64 on a device.

    Args:
        device: "cpu", "cuda" or "cuda:1".
        seconds: for each dtype, about; an emulated one can take twice that.

    Raises:
        DeviceError: the device is not there.
    """
    import torch

    from narrows._machine._matmul import best_matmul

    clock = stopwatch(device)
    rates = {name: best_matmul(clock, getattr(torch, name), seconds=seconds).flops_per_s for name in DTYPE_BYTES}
    base = rates["float32"]
    return tuple(DtypeProbe(name, rate, rate / base, rate >= FAST * base) for name, rate in rates.items())
