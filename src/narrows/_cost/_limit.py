"""The least time that a machine's measured ceilings allow for a cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from narrows._cost._chain import Cost
    from narrows._values import Cache, Ceilings, Mode


def limit_ns(
    cost: Cost, launches: int, ceilings: Ceilings, *, mode: Mode, cache: Cache, is_asynchronous: bool = False
) -> float:
    """Return the least time of one call: moving or computing, whichever is longer, and the launches.

    Moving is bytes read / read ceiling + bytes written / write ceiling. Hot rows whose whole working
    set fits the last-level cache are held to the cache's ceilings; all others to memory's.

    Args:
        launches: kernels of one call.
        is_asynchronous: the device works while the host launches (a GPU). Launches then overlap with
            work, and the limit is the longer of the two; a CPU does one after the other. (On an H200,
            1024 tokens, a sum would have put the dense chain at 106 to 107 % of its limit.)
    """
    fits = cache == "hot" and cost.memory_bytes <= ceilings.last_level_cache_bytes
    read = ceilings.hot_read_bytes_per_s if fits else ceilings.read_bytes_per_s
    write = ceilings.hot_write_bytes_per_s if fits else ceilings.write_bytes_per_s
    moving = cost.bytes_read / read + cost.bytes_written / write
    computing = cost.flops / ceilings.flops_per_s
    working = max(moving, computing) * 1e9
    launching = launches * (ceilings.graph_launch_ns if mode == "graph" else ceilings.eager_launch_ns)
    return max(working, launching) if is_asynchronous else working + launching
