"""`ceilings()`: the best this machine does now, measured. A ceiling is a maximum, so minimum times count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._machine._describe import machine
from narrows._machine._memory import available_bytes
from narrows._machine._stopwatch import Stopwatch, Work, stopwatch
from narrows._values import Ceilings, dtype_name
from narrows.errors import InputError, ResourceError

if TYPE_CHECKING:
    import torch

    from narrows._values import Machine

COLD_CACHES = 4  # a buffer of this many last-level caches: at most a quarter of it can be hot
LEAST_COLD_BYTES = {"cpu": 64 << 20, "cuda": 256 << 20}
LAUNCHES = 100
# Shares of the time.
READ, WRITE, COPY, HOT, MATMUL, LAUNCH = 0.15, 0.10, 0.10, 0.05, 0.35, 0.05


def ceilings(device: str = "cpu", dtype: object = "float32", *, seconds: float = 4.0) -> Ceilings:
    """Return the ceilings of a device, measured now.

    Args:
        device: "cpu", "cuda" or "cuda:1".
        dtype: of the matmul: float32, bfloat16, float16 or float64.
        seconds: about what it takes.

    Raises:
        DeviceError: the device is not there.
        InputError: an unknown dtype, or seconds <= 0.
        ResourceError: the device has too little free memory for the buffers.
    """
    import torch

    from narrows._machine._matmul import best_matmul

    name = dtype_name(dtype)
    if not seconds > 0:
        raise InputError(f"seconds={seconds} must be > 0.")
    clock, about = stopwatch(device), machine(device)
    eager_ns, graph_ns = _launch_ns(clock, seconds * LAUNCH)
    read, write, copy = _cold(clock, _cold_bytes(about, device), seconds)
    hot_read, hot_write = _hot(clock, about, seconds, overhead_ns=graph_ns)
    matmul = best_matmul(clock, getattr(torch, name), seconds=seconds * MATMUL)
    return Ceilings(
        dtype=name,
        read_bytes_per_s=read,
        write_bytes_per_s=write,
        hot_read_bytes_per_s=max(hot_read, read),
        hot_write_bytes_per_s=max(hot_write, write),
        copy_bytes_per_s=copy,
        flops_per_s=matmul.flops_per_s,
        flops_shape=matmul.shape,
        eager_launch_ns=eager_ns,
        graph_launch_ns=graph_ns,
        last_level_cache_bytes=about.last_level_cache_bytes,
    )


def _cold_bytes(about: Machine, device: str) -> int:
    """Return the size of a buffer that no cache holds; two of them must fit the free memory."""
    wanted = max(COLD_CACHES * about.last_level_cache_bytes, LEAST_COLD_BYTES[about.device])
    free = available_bytes(device)
    if 2 * wanted > free:
        raise ResourceError(
            f"measuring ceilings on {device} needs two buffers of {wanted / 1e6:.0f} MB "
            f"({COLD_CACHES} x the last-level cache), but {free / 1e6:.0f} MB are free. Free some memory."
        )
    return wanted


def _cold(clock: Stopwatch, num_bytes: int, seconds: float) -> tuple[float, float, float]:
    """Return bytes a second read, written, and copied (both directions counted), from memory."""
    from narrows._machine._bandwidth import buffer, readers, writers

    x, y = buffer(num_bytes, clock), buffer(num_bytes, clock)
    read = clock.best(readers(x), seconds=seconds * READ)
    write = clock.best(writers(y), seconds=seconds * WRITE)
    copy = clock.best([Work(lambda: y.copy_(x), 2 * x.numel() * x.element_size())], seconds=seconds * COPY)
    return read.per_s, write.per_s, copy.per_s


def _hot_sets(clock: Stopwatch, about: Machine) -> list[torch.Tensor]:
    """Return buffers of a quarter of the last-level cache and of half of the second level."""
    from narrows._machine._bandwidth import buffer

    last = about.last_level_cache_bytes
    return [buffer(num_bytes, clock) for num_bytes in sorted({last // 4, about.caches.get("L2", last) // 2})]


def _hot(clock: Stopwatch, about: Machine, seconds: float, *, overhead_ns: float) -> tuple[float, float]:
    """Return bytes a second read and written in sets that a cache holds, each timed alone so that it stays there."""
    from narrows._machine._bandwidth import hot_readers, writers

    read = write = 0.0
    for x in _hot_sets(clock, about):
        # One way at a time: in turns over two sets, one would push the other out.
        for work in hot_readers(x, threads=about.threads):
            read = max(read, clock.best([work], seconds=seconds * HOT / 6, overhead_ns=overhead_ns).per_s)
        for work in writers(x):
            write = max(write, clock.best([work], seconds=seconds * HOT / 4, overhead_ns=overhead_ns).per_s)
    return read, write


def _launch_ns(clock: Stopwatch, seconds: float) -> tuple[float, float]:
    """Return the least cost of one tiny operation: eager, and inside a CUDA graph (0 on a CPU)."""
    import torch

    tiny = torch.zeros(1, device=clock.device)

    def many() -> None:
        for _ in range(LAUNCHES):
            tiny.add_(1.0)

    per_launch_ns = 1e9 / clock.best([Work(many, LAUNCHES)], seconds=seconds).per_s
    if clock.device == "cpu":
        return per_launch_ns, 0.0
    from narrows._machine._gpu_clock import eager_launch_ns

    return eager_launch_ns(lambda: tiny.add_(1.0), clock.device), per_launch_ns
