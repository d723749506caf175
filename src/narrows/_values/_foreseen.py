"""What compressing a model will take and can gain at most, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a dry run says. Times are the least: at the best rates, which nothing keeps throughout.

    Attributes:
        layers, numbers: linear layers that may change, and what they hold.
        tokens: that calibrate.
        timing_seconds: of measuring single layers at the workloads, about; 0 without workloads.
        calibration_seconds, decomposition_seconds: of all layers.
        trials, trial_seconds: models that are built and measured, at most, and what each takes.
        recovery_seconds: of training, as asked for.
        peak_bytes: memory.
        gains: (kept, speedup): what keeping this share of the numbers gives if time follows FLOPs: the most.
        needed_kept: share that a budget's speedup needs so; 0 or less: it cannot be had. None: no speedup is asked for.
        flops_per_s, float64_flops_per_s: of the device, measured.
        device_name, dtype: where and what of.
    """

    layers: int
    numbers: int
    tokens: int
    timing_seconds: float
    calibration_seconds: float
    decomposition_seconds: float
    trials: int
    trial_seconds: float
    recovery_seconds: float
    peak_bytes: int
    gains: tuple[tuple[float, float], ...]
    needed_kept: float | None
    flops_per_s: float
    float64_flops_per_s: float
    device_name: str
    dtype: str

    __pydantic_config__ = {"extra": "forbid"}
