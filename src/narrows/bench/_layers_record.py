"""Measured times of the forms that a layer could take: frozen, in one JSON file. Never imports torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

from narrows._stats import TIE
from narrows._values import Form  # noqa: TC001 (pydantic reads these annotations at run time)
from narrows._values._json import load_value, sealed
from narrows.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narrows._values import Workload

LAYER_TIMES_SCHEMA = 2


@dataclass(frozen=True, slots=True)
class LayerTime:
    """What one form of a layer takes at a number of rows.

    Attributes:
        in_features, out_features: D, E.
        rank: None for dense.
        rows: T, rows of x in one call.
        time_ns: of one call, the median over rounds.
        speedup: dense time / this time, the median over rounds that hold both; 1.0 for dense.
        speedup_low, speedup_high: ends of its 99 % interval.
        doubts: sentences that speak against the time (spread, drift, the steps of a scheduler).
    """

    in_features: int
    out_features: int
    form: Form
    rank: int | None
    rows: int
    time_ns: float
    speedup: float = 1.0
    speedup_low: float = 1.0
    speedup_high: float = 1.0
    doubts: tuple[str, ...] = ()

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    @property
    def is_faster(self) -> bool:
        """Faster than dense beyond a tie: the interval's lower end is above 1.02."""
        return self.speedup_low > 1 + TIE


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """Times of every measured form, with look-up.

    Attributes:
        times: by shape and rows; dense first in each.
        dtype, device: "bfloat16", "cpu" or "cuda".
        fingerprint, device_name: of the machine that was measured.
        version: of narrows.
    """

    times: tuple[LayerTime, ...]
    dtype: str
    device: str
    fingerprint: str
    device_name: str
    version: str
    schema: int = LAYER_TIMES_SCHEMA

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def of(self, in_features: int, out_features: int, rows: int) -> tuple[LayerTime, ...]:
        """Return what was measured of one shape at a number of rows, dense first; nothing where it was not."""
        wanted = (in_features, out_features, rows)
        return tuple(one for one in self.times if (one.in_features, one.out_features, one.rows) == wanted)

    def at(
        self, in_features: int, out_features: int, *, rows: int, form: Form = "dense", rank: int | None = None
    ) -> LayerTime:
        """Return one measured time; nothing is interpolated.

        Raises:
            InputError: it was not measured; the text says which ranks were.
        """
        measured = self.of(in_features, out_features, rows)
        for one in measured:
            if (one.form, one.rank) == (form, rank):
                return one
        what = form if rank is None else f"{form} at rank {rank}"
        if not measured:
            known = sorted({(one.in_features, one.out_features, one.rows) for one in self.times})
            raise InputError(
                f"{what} of D={in_features}, E={out_features} was not measured at {rows} rows; measured (D, E, rows): "
                f"{', '.join(map(str, known)) or 'none'}."
            )
        ranks = ", ".join(str(one.rank) for one in measured if one.form == form and one.rank is not None)
        raise InputError(
            f"{what} of D={in_features}, E={out_features} was not measured at {rows} rows; ranks of this form that "
            f"were: {ranks or 'none'}."
        )

    def weighted(
        self,
        in_features: int,
        out_features: int,
        *,
        workloads: Sequence[Workload],
        form: Form = "dense",
        rank: int | None = None,
    ) -> tuple[float, bool]:
        """Return (time_ns, is_faster) over several workloads: each one's call by its share of the weights.

        It is faster when it would be with every time at the slow end of its interval.

        Raises:
            InputError: as `at`.
        """
        total = sum(one.weight for one in workloads)
        time = slow = dense = 0.0
        for one in workloads:
            share = one.weight / total
            found = self.at(in_features, out_features, rows=one.rows, form=form, rank=rank)
            base = self.at(in_features, out_features, rows=one.rows).time_ns
            time += share * found.time_ns
            dense += share * base
            slow += share * base / found.speedup_low if found.speedup_low > 0 else float("inf")
        return time, form != "dense" and dense > (1 + TIE) * slow

    def to_json(self) -> str:
        """Return everything as one JSON document."""
        return sealed(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "layer times") -> LayerTimes:
        """Read what `to_json` wrote.

        Raises:
            FileError: not JSON, not such a record, or of a newer schema; the text names the place.
        """
        return load_value(cls, text, source=source, schema=LAYER_TIMES_SCHEMA, is_sealed=True)
