"""From what was measured to what is run: the exact signature, else its nearest neighbours, else nothing."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING

from narrows.kernels.tuned._signature import cublas

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from narrows.kernels._config import Config
    from narrows.kernels.tuned._records import Entry
    from narrows.kernels.tuned._signature import Signature

NEAR = 1.0  # a factor of 2 in tokens and in rank, in log2
NEAR_FEATURES = 2.0  # a factor of 4


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What was measured around a signature.

    Attributes:
        nearest: the entry whose sizes are used; None: nothing near was measured.
        around: the entries that must agree before an own kernel is taken: the exact one, or the
            measured lengths on both sides.
    """

    nearest: Entry | None = None
    around: tuple[Entry, ...] = ()

    def winner(self, signature: Signature) -> str:
        """Return the implementation to run: an own kernel only where it beats cuBLAS at every one around."""
        base = cublas(signature)
        if self.nearest is None:
            return base
        names = [name for name in self.nearest.candidates if all(entry.beats_cublas(name) for entry in self.around)]
        return max(names, key=lambda name: min(e.candidates[name].speedup for e in self.around), default=base)

    def config(self, name: str) -> Config | None:
        """Return the sizes that were best for an implementation; None where it was not measured."""
        found = None if self.nearest is None else self.nearest.candidates.get(name)
        return found.config if found is not None and found.checked else None


def neighbours(signature: Signature, entries: Iterable[Entry]) -> Neighbours:
    """Return what was measured at a signature, or near it.

    Near: the same kind, dtype, mode, heads and Y = X or not; within a factor of 2 in tokens and rank and of 4
    in features. Of several (features, rank) that are near, the nearest; along its lengths the nearest one gives
    the sizes, and the next ones on both sides, however far, must agree (as for a plan between two lengths).

    Args:
        signature: of the call.
        entries: of its device.
    """
    near = [entry for entry in entries if _is_comparable(signature, entry)]
    groups = {_shape(entry) for entry in near}
    if not groups:
        return Neighbours()
    for shape in sorted(groups, key=lambda sizes: (_shape_distance(signature, sizes), sizes)):
        found = _along_lengths(signature.tokens, [entry for entry in near if _shape(entry) == shape])
        if found.nearest is not None:
            return found
    return Neighbours()


Shape = tuple[int, int, int, int]  # D, E, R, U


def _shape(entry: Entry | Signature) -> Shape:
    return entry.in_features, entry.out_features, entry.rank, entry.other_tokens


def _is_comparable(signature: Signature, entry: Entry) -> bool:
    """Say whether an entry is of the same kind of call and not too far in all but tokens."""
    same = (entry.kind, entry.dtype, entry.mode, entry.heads) == (
        signature.kind,
        signature.dtype,
        signature.mode,
        signature.heads,
    )
    if not same or (entry.other_tokens == 0) != signature.is_self:
        return False
    D, E, R, U = (_distance(mine, theirs) for mine, theirs in zip(_shape(signature), _shape(entry), strict=True))
    return D <= NEAR_FEATURES and E <= NEAR_FEATURES and R <= NEAR and U <= NEAR


def _along_lengths(tokens: int, entries: Sequence[Entry]) -> Neighbours:
    """Return the neighbours among entries that differ in tokens only."""
    below = max((e for e in entries if e.tokens <= tokens), key=lambda e: e.tokens, default=None)
    above = min((e for e in entries if e.tokens >= tokens), key=lambda e: e.tokens, default=None)
    both = tuple(entry for entry in (below, above) if entry is not None)
    nearest = min(both, key=lambda e: _distance(tokens, e.tokens))
    if _distance(tokens, nearest.tokens) > NEAR:
        return Neighbours()
    return Neighbours(nearest, (nearest,) if nearest.tokens == tokens else both)


def _shape_distance(signature: Signature, shape: Shape) -> float:
    return sum(_distance(mine, theirs) for mine, theirs in zip(_shape(signature), shape, strict=True))


def _distance(mine: int, theirs: int) -> float:
    """Return |log2(mine / theirs)|; both are 0 together."""
    return abs(log2(max(mine, 1) / max(theirs, 1)))
