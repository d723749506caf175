"""What a whole model may lose and must gain, what each layer could become, and what was decided."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Literal

from narrows._values._json import load_value
from narrows._values._workload import Workload
from narrows.errors import InputError

Form = Literal["dense", "low-rank", "pivot"]
MODEL_PLAN_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ModelBudget:
    """Limits on a compressed model; None means "no limit".

    Attributes:
        perplexity: perplexity may grow by at most this share (0.01 is 1 %).
        keep: numbers in place of the block linears / the dense block linears' numbers, at most.
        speedup: dense time / compressed time at the workload, at least.
        max_bytes: bytes of what is kept in place of the block linears, at most.
    """

    perplexity: float | None = None
    keep: float | None = None
    speedup: float | None = None
    max_bytes: int | None = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.perplexity is not None and not 0 <= self.perplexity < math.inf:
            raise InputError(f"perplexity={self.perplexity} must be a finite number >= 0 (0.01 is 1 %).")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise InputError(f"keep={self.keep} must be above 0 and at most 1 (0.9 keeps 90 % of the numbers).")
        if self.speedup is not None and not 0 < self.speedup < math.inf:
            raise InputError(f"speedup={self.speedup} must be a finite number > 0 (1.2 is 20 % faster).")
        if self.max_bytes is not None and self.max_bytes <= 0:
            raise InputError(f"max_bytes={self.max_bytes} must be > 0.")
        if (self.perplexity, self.keep, self.speedup, self.max_bytes) == (None, None, None, None):
            raise InputError("the budget is empty: give at least one of perplexity, keep, speedup, max_bytes.")


@dataclass(frozen=True, slots=True)
class LayerOption:
    """One thing that a layer could become.

    Attributes:
        rank: None for dense.
        numbers, bytes: that are kept for the weight (no bias).
        damage: expected growth of the loss, nats a token; 0.0 for dense.
        time_ns: one call at each workload, weighted; None: not measured.
        is_faster: faster than dense beyond a tie; None: not measured.
    """

    form: Form
    rank: int | None
    numbers: int
    bytes: int
    damage: float
    time_ns: float | None = None
    is_faster: bool | None = None

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """Everything one layer could become; the first option is dense."""

    layer: str
    in_features: int
    out_features: int
    options: tuple[LayerOption, ...]

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """What was decided for one layer, and why."""

    layer: str
    in_features: int
    out_features: int
    chosen: LayerOption
    dense: LayerOption
    reason: str

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What every layer becomes.

    Attributes:
        layers: in the model's order; layers that were not asked for are not here.
        method: how factors are made ("two-sided", "one-sided", "plain").
        other_ns: time at the workload that no choice changes (attention, norms, head); None: not measured.
        fingerprint, device_name: of the machine whose times were used; forms and ranks are portable.
    """

    layers: tuple[LayerChoice, ...]
    budget: ModelBudget
    workloads: tuple[Workload, ...]
    dtype: str
    method: str
    other_ns: float | None
    fingerprint: str
    device_name: str
    version: str
    schema: int = MODEL_PLAN_SCHEMA

    __pydantic_config__ = {"extra": "forbid"}

    @property
    def kept(self) -> float:
        """Numbers kept / numbers of the dense linears."""
        return self._sum("numbers") / sum(one.dense.numbers for one in self.layers)

    @property
    def num_bytes(self) -> int:
        """Bytes kept in place of the linears."""
        return int(self._sum("bytes"))

    @property
    def damage(self) -> float:
        """Expected growth of the loss, nats a token."""
        return self._sum("damage")

    @property
    def speedup(self) -> float | None:
        """Expected dense time / compressed time at the workload; None where times were not measured."""
        if self.other_ns is None or any(one.chosen.time_ns is None for one in self.layers):
            return None
        dense = sum(one.dense.time_ns or 0.0 for one in self.layers)
        return (self.other_ns + dense) / (self.other_ns + self._sum("time_ns"))

    def _sum(self, field: str) -> float:
        return float(sum(getattr(one.chosen, field) for one in self.layers))

    def to_json(self) -> str:
        """Return the plan as one JSON document."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "plan") -> ModelPlan:
        """Read what `to_json` wrote.

        Raises:
            FileError: not JSON, not such a plan, or of a newer schema; the text names the place.
        """
        return load_value(cls, text, source=source, schema=MODEL_PLAN_SCHEMA)
