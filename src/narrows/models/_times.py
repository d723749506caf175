"""What each form of each layer takes at the workloads, and what the model takes beside its layers.

Letters: D input, E output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from narrows._files import make_folder
from narrows._stats import TIE
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
    from narrows.models._stacks import Stack

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
        stacks: Sequence[Stack] = (),
    ) -> Times:
        """Return times measured here, of layers and stacks one by one and of the dense model as a whole."""
        weight = next(model.parameters())
        shapes = [(one.in_features, one.out_features) for one in targets]
        joint = [(one.in_features, one.out_features) for one in stacks]
        found = layer_times(
            list(dict.fromkeys([*shapes, *joint])),
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

    def of_stack(self, in_features: int, sizes: Sequence[int], form: Form, rank: int) -> tuple[float, bool]:
        """Return `of` for layers with one projection: one call for all of them.

        It is faster where it is faster, beyond a tie, than all layers dense in one call, with which it was timed side
        by side, and than the dense layers one after the other.

        Args:
            sizes: E of each layer.
        """
        time_ns, is_faster = self.of(in_features, sum(sizes), form, rank)
        apart_ns = sum(self.of(in_features, size, "dense", None)[0] for size in sizes)
        return time_ns, is_faster and apart_ns > (1 + TIE) * time_ns


def _made(folder: str | PathLike[str]) -> Path:
    """Return a folder that is there.

    Raises:
        ResourceError: it cannot be made.
    """
    try:
        make_folder(Path(folder))
    except OSError as fault:
        raise ResourceError(f"the folder {folder} cannot be made: {fault.strerror or fault}.") from None
    return Path(folder)
