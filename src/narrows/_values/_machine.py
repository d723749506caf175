"""What a machine is and how fast its parts are, as records; `_machine` fills them in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["eager", "graph"]
Cache = Literal["hot", "cold"]
MODES: tuple[Mode, ...] = ("eager", "graph")
CACHES: tuple[Cache, ...] = ("hot", "cold")


@dataclass(frozen=True, slots=True)
class Machine:
    """What identifies a device and the software that runs on it.

    Attributes:
        fingerprint: hash of everything here that changes a time; what is resumed and
            compared is keyed by it.
        device: "cpu" or "cuda" (the model, never an index).
        name: processor or GPU model, as the system names it.
        cores: physical CPU cores this process may use.
        threads: threads torch uses.
        caches: bytes of the CPU's caches by level ("L1d", "L2", "L3"); for a GPU "L2".
        features: instruction sets or capability that matter here ("avx512_bf16", "sm_90").
        memory_bytes: RAM, or the GPU's memory.
        num_multiprocessors: of the GPU; 0 for a CPU.
        software: name -> version (python, torch, blas, triton, driver, os).
    """

    fingerprint: str
    device: str
    name: str
    cores: int
    threads: int
    caches: dict[str, int]
    features: tuple[str, ...]
    memory_bytes: int
    num_multiprocessors: int = 0
    software: dict[str, str] = field(default_factory=dict)

    __pydantic_config__ = {"extra": "forbid"}

    @property
    def last_level_cache_bytes(self) -> int:
        """The largest cache; 32 MiB when the system does not say."""
        return max(self.caches.values(), default=32 << 20)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The best this machine did for one dtype: bytes and FLOPs a second, cost of one launch.

    Cold: from memory. Hot: from a working set that fits the last-level cache.

    Attributes:
        dtype: of the matmul ceiling.
        read_bytes_per_s, write_bytes_per_s: cold.
        hot_read_bytes_per_s, hot_write_bytes_per_s: hot.
        copy_bytes_per_s: bytes read plus bytes written, cold.
        flops_per_s: best of several shapes and thread counts.
        flops_shape: the (M, K, N) that reached it.
        eager_launch_ns, graph_launch_ns: one tiny kernel; graph is 0 on a CPU.
        last_level_cache_bytes: what "fits" means.
    """

    dtype: str
    read_bytes_per_s: float
    write_bytes_per_s: float
    hot_read_bytes_per_s: float
    hot_write_bytes_per_s: float
    copy_bytes_per_s: float
    flops_per_s: float
    flops_shape: tuple[int, int, int]
    eager_launch_ns: float
    graph_launch_ns: float
    last_level_cache_bytes: int

    __pydantic_config__ = {"extra": "forbid"}
