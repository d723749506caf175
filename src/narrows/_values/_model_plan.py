"""What a whole model may lose and must gain, what each layer could become, and what was decided."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from narrows._values._json import load_value, sealed
from narrows._values._workload import Workload
from narrows.errors import InputError

Form = Literal["dense", "low-rank", "pivot"]
MODEL_PLAN_SCHEMA = 2


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
        stack: names of the layers, this one among them, whose weights one on top of the other have this form
            together, with one projection; numbers, bytes, damage and time are then this layer's share of the whole,
            by output features. Empty: the form is this layer's alone.
    """

    form: Form
    rank: int | None
    numbers: int
    bytes: int
    damage: float
    time_ns: float | None = None
    is_faster: bool | None = None
    stack: tuple[str, ...] = ()

    __pydantic_config__ = {"extra": "forbid"}

    @property
    def kind(self) -> str:
        """The form in words: "dense", "low-rank", "shared pivot"."""
        return f"shared {self.form}" if self.stack else self.form

    def __str__(self) -> str:
        return self.kind if self.rank is None else f"{self.kind} {self.rank}"


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

    @property
    def together(self) -> tuple[str, ...]:
        """Names of the layers that are replaced by one module: those of its stack, or this one alone."""
        return self.chosen.stack or (self.layer,)


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

    def __post_init__(self) -> None:
        chosen = {one.layer: one.chosen for one in self.layers}
        for layer, option in chosen.items():
            for other in option.stack:
                _check_partner(layer, option, other, chosen.get(other))

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
        """Expected dense time / compressed time at the workload, inf for no time; None where it was not measured."""
        if self.other_ns is None or any(one.chosen.time_ns is None for one in self.layers):
            return None
        dense = sum(one.dense.time_ns or 0.0 for one in self.layers)
        compressed = self.other_ns + self._sum("time_ns")
        return (self.other_ns + dense) / compressed if compressed else math.inf

    def _sum(self, field: str) -> float:
        return float(sum(getattr(one.chosen, field) for one in self.layers))

    def to_json(self) -> str:
        """Return the plan as one JSON document."""
        return sealed(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "plan") -> ModelPlan:
        """Read what `to_json` wrote.

        Raises:
            FileError: not JSON, not such a plan, of a newer schema, or changed since; the text names the place.
        """
        return load_value(cls, text, source=source, schema=MODEL_PLAN_SCHEMA, is_sealed=True)


def _check_partner(layer: str, option: LayerOption, other: str, found: LayerOption | None) -> None:
    """Raise InputError where a layer of the same stack is missing in a plan, or becomes something else."""
    if found is None:
        raise InputError(
            f"layer {layer} shares its projection with {other}, which is not in the plan: a plan holds all layers of a "
            "stack."
        )
    if layer not in option.stack or (found.form, found.rank, found.stack) != (option.form, option.rank, option.stack):
        raise InputError(
            f"layer {layer} becomes {option} with {', '.join(option.stack)}, but {other} becomes {found}: layers of a "
            "stack have one form and one rank."
        )
