"""Crashes: kills, full disks and Ctrl-C at any point lose nothing that was called kept, and leave no halves.

python -m soak crashes [--seed S] [--scale X] [--jobs N]
python -m soak.crashes KIND VERB NUMBER [--seed S]     one cycle of it again: KIND is call, moment, full or disk
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soak._figure import Figure


def figures(seed: int, scale: float, jobs: int) -> Iterator[Figure]:
    """Yield the figures of this part as they come."""
    from soak.crashes import part  # here: `soak.crashes.work` is killed at moments of its start, which stays short

    return part.figures(seed, scale, jobs)
