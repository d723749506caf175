"""Mutants: small changes to the source, and wrong kernels, which the tests must notice.

    python -m soak mutants --jobs 16              a seeded sample of 300, and every wrong kernel
    python -m soak.mutants NAME...                these mutants again, each with its change

Every mutant runs in a copy of the tree: first the tests that run its lines, the fastest first, and until one fails.
What became of each is a line of build/mutants.jsonl; a run that was stopped goes on with what is left. With a changed
source or test it begins anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soak._figure import Figure


def figures(seed: int, scale: float, jobs: int) -> Iterator[Figure]:
    """Yield the figures of this part as they come."""
    from soak.mutants import part  # here: the servers of this package must not hold narrows before a mutant is planted

    return part.figures(seed, scale, jobs)
