"""Moments that stay on the disk until a layer is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from narrows._values import Moments
from narrows.models._calibrate_gram import Gram, panels_of
from narrows.models._calibrate_sums import labels_weight

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from narrows.models._moments_store import MomentsStore


class StoredMoments(Mapping[str, Moments]):
    """Layer name -> moments, in the targets' order, each made from the store's sums when it is asked for.

    Args:
        store: with the sums of every pass.
        leaders: for each pass, layer name -> the layer under whose name its input's sums are kept.
    """

    def __init__(self, store: MomentsStore, leaders: Sequence[Mapping[str, str]]) -> None:
        self._store = store
        self._leaders = {name: (i, leader) for i, part in enumerate(leaders) for name, leader in part.items()}

    def __getitem__(self, name: str) -> Moments:
        number, leader = self._leaders[name]
        kept = self._store.counts(number)
        assert kept is not None
        rows, names = kept[1][leader], set(self._store.names(number))
        gradients = None
        if f"gradients/{name}/0" in names:
            sums = [self._store.tensor(number, one) if one in names else None for one in ("hidden", "squares")]
            gradients = self._gram(number, f"gradients/{name}").mean(labels_weight(kept[1][""], sums[0], sums[1]))
        inputs = self._gram(number, f"inputs/{leader}").mean(rows)
        return Moments(inputs, self._store.tensor(number, f"totals/{leader}")[0] / rows, gradients, rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._leaders)

    def __len__(self) -> int:
        return len(self._leaders)

    def _gram(self, number: int, name: str) -> Gram:
        first: torch.Tensor = self._store.tensor(number, f"{name}/0")
        others = range(1, panels_of(first.shape[1]))
        return Gram.of([first, *(self._store.tensor(number, f"{name}/{i}") for i in others)])
