"""What each form of each layer takes at the workloads, and what the model takes beside its layers.

Letters: D input, E output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from narrows.bench import layer_times
from narrows.errors import ResourceError
from narrows.models._trial import dense_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

    from torch import nn

    from narrows._values import Form, Workload
    from narrows.bench import LayerTimes
    from narrows.models._match import Target

    Progress = Callable[[str, int, int], None] | None

LAYER_SECONDS = 60.0
STORE = "layer-times.json"


@dataclass(frozen=True, eq=False)
class Times:
    """Measured times at the workloads, each workload by its share of the weights.

    Attributes:
        layers: of every form and rank that was measured.
        workloads: that they are weighted by.
        other_ns: dense model's time less that of its layers: attention, norms, head.
    """

    layers: LayerTimes
    workloads: tuple[Workload, ...]
    other_ns: float

    @classmethod
    def measured(
        cls,
        model: nn.Module,
        targets: Sequence[Target],
        workloads: Sequence[Workload],
        *,
        seed: int,
        store: str | PathLike[str] | None,
        progress: Progress,
    ) -> Times:
        """Return times measured here, of the layers one by one and of the dense model as a whole."""
        weight = next(model.parameters())
        shapes = [(one.in_features, one.out_features) for one in targets]
        found = layer_times(
            list(dict.fromkeys(shapes)),
            rows=[one.rows for one in workloads],
            dtype=str(weight.dtype).removeprefix("torch."),
            device=str(weight.device),
            seconds=LAYER_SECONDS,
            store=None if store is None else _made(store) / STORE,
            progress=progress,
        )
        layers = sum(found.weighted(D, E, workloads=workloads)[0] for D, E in shapes)
        whole = dense_ns(model, workloads, seed=seed, progress=progress)
        return cls(found, tuple(workloads), max(whole - layers, 0.0))

    def ranks(self, in_features: int, out_features: int, form: Form) -> tuple[int, ...]:
        """Return the ranks of a form that were measured at every workload, rising."""
        by_rows = [
            {one.rank for one in self.layers.of(in_features, out_features, workload.rows) if one.form == form}
            for workload in self.workloads
        ]
        return tuple(sorted(rank for rank in set.intersection(*by_rows) if rank is not None))

    def of(self, in_features: int, out_features: int, form: Form, rank: int | None) -> tuple[float, bool]:
        """Return (ns of one call, whether that is faster than dense beyond a tie)."""
        return self.layers.weighted(in_features, out_features, workloads=self.workloads, form=form, rank=rank)


def _made(folder: str | PathLike[str]) -> Path:
    """Return a folder that is there.

    Raises:
        ResourceError: it cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ResourceError(f"the folder {folder} cannot be made: {fault.strerror or fault}.") from None
    return Path(folder)
