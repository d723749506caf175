"""Noise: how often a variant is called faster than itself, and whether repeats under load say the same.

Nothing here runs beside anything else that it started, but the load it asks for: `jobs` is for the simulation only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soak._figure import Figure


def figures(seed: int, scale: float, jobs: int) -> Iterator[Figure]:
    """Yield the figures of this part as they come."""
    from soak.noise import part  # here: `soak.noise.load` is to keep its core busy, not to import PyTorch

    return part.figures(seed, scale, jobs)
