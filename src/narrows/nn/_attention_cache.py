"""Keys and values of the tokens so far, as narrow as the heads that made them.

Letters: B batch, G key heads, T new tokens, U tokens so far, R width of a key, F width of a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor

GROWTH = 2  # room is doubled, so that each token is copied at most once on average


class KeyValueCache:
    """One layer's cache; inference only: it is written in place.

    Attributes:
        length: U.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add (B, G, T, R) and (B, G, T, F); return views of all, (B, G, U, R) and (B, G, U, F).

        Raises:
            ShapeError: another batch, other heads or widths than before.
        """
        end = self.length + keys.shape[2]
        self._keys, self._values = self._with_room(self._keys, keys, end), self._with_room(self._values, values, end)
        self._keys[:, :, self.length : end] = keys
        self._values[:, :, self.length : end] = values
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    @property
    def num_bytes(self) -> int:
        """Bytes of the tokens so far, without room for more."""
        held = [t for t in (self._keys, self._values) if t is not None]
        return sum(t[:, :, : self.length].numel() * t.element_size() for t in held)

    def _with_room(self, held: Tensor | None, new: Tensor, end: int) -> Tensor:
        if held is None:
            return new.new_empty(*new.shape[:2], end, new.shape[3])
        if held.shape[:2] != new.shape[:2] or held.shape[3] != new.shape[3]:
            raise ShapeError(
                f"the cache holds (B, G, width) = {(*held.shape[:2], held.shape[3])}, the new tokens have "
                f"{(*new.shape[:2], new.shape[3])}: use one cache for each layer and batch."
            )
        if held.shape[2] >= end:
            return held
        roomy = held.new_empty(*held.shape[:2], max(end, GROWTH * held.shape[2]), held.shape[3])
        roomy[:, :, : self.length] = held[:, :, : self.length]
        return roomy
