"""The measured data: one row for every (problem, rank, variant, mode, cache), raw samples kept."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from narrows._values._experiment import Experiment
from narrows._values._json import load_value, sealed
from narrows._values._machine import Cache, Ceilings, Machine, Mode
from narrows._values._problem import Problem
from narrows.errors import InputError

SCHEMA = 2


@dataclass(frozen=True, slots=True)
class OutputError:
    """||S_thin - S_64|| / ||S_64|| on sampled rows of inputs that did not make the factors.

    Attributes:
        weight: name of the weight.
        tokens, rank: of the row it belongs to.
        truncation: of exact (float64) factors in exact arithmetic.
        rounding: of the same chain in the row's dtype against the exact thin chain.
        total: both together.
        upper95: upper 95 % end of `total` (bootstrap over sampled rows): what a budget bounds.
    """

    weight: str
    tokens: int
    rank: int
    truncation: float
    rounding: float
    total: float
    upper95: float

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class WeightRecord:
    """What is known of one weight.

    Attributes:
        name: as in the experiment.
        sha256: of its bytes (both operands of a product).
        method: how it was factorised.
        singular_values: the kept spectrum; over heads, the root of the summed squares.
        factor_errors: rank -> ||W - W_rank||_F / ||W||_F, for the measured ranks.
        residual: measured ||W - W_R||_F / ||W||_F at the largest kept rank.
        seconds: time of the factorisation (the preparation).
        true_rank: largest rank the weight can have by construction; None: full.
    """

    name: str
    sha256: str
    method: str
    singular_values: tuple[float, ...]
    factor_errors: dict[int, float]
    residual: float
    seconds: float
    true_rank: int | None = None

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Row:
    """One measured point. A row without an "ok" status has no samples and says why.

    Attributes:
        tokens: T.
        rank: R; None for a dense row.
        variant: dense: "left" ((x W^T) y^T, the origin's), "right" (x (y W)^T), "given"
            (a product as it was given), "linear"; thin: the implementation's name.
        mode, cache: eager or graph; hot or cold.
        status: "ok", "wrong result", "refused", "does not fit", "failed", "killed (signal 9)",
            "timed out".
        reason: why the status is not "ok".
        samples_ns: time of one call, one sample a round.
        rounds: the round of each sample: samples of one round were taken side by side.
        launches: matmuls or kernels that one call launches, as the implementation says.
        flops, bytes_read, bytes_written: by formula, each operand read once.
        limit_ns: the least time this machine's ceilings allow; None where unknown.
        memory_bytes: by formula: operands, intermediates, result.
        peak_memory_bytes: measured (RSS high-water of a fresh process; on a GPU the
            allocator's peak); None where it was not measured.
        rounding: ||S - S_exact|| / ||S_exact|| of this row's own output, the exact chain
            of the same stored operands in float64.
        worst: largest |error| / bound over the checked elements (above 1: wrong).
    """

    tokens: int
    rank: int | None
    variant: str
    mode: Mode
    cache: Cache
    status: str
    reason: str = ""
    samples_ns: tuple[float, ...] = ()
    rounds: tuple[int, ...] = ()
    launches: int = 0
    flops: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    limit_ns: float | None = None
    memory_bytes: int = 0
    peak_memory_bytes: int | None = None
    rounding: float | None = None
    worst: float | None = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        wrong = [ns for ns in self.samples_ns if not 0 < ns < math.inf]
        if wrong:
            raise InputError(f"samples_ns={wrong[0]} must be finite and > 0: a time is.")
        if self.samples_ns and self.flops < 1:
            raise InputError(f"flops={self.flops} must be at least 1 in a row with samples: no product has fewer.")

    @property
    def is_dense(self) -> bool:
        """One of the dense chain's associations."""
        return self.rank is None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one experiment measured on one machine. Serialisable and comparable.

    Attributes:
        experiment: what was asked.
        machine: what it ran on.
        ceilings: measured in the same run; None when nothing ran.
        weights, errors, rows: the data.
        inputs: hash of the content of x and y, or the recipe that makes them.
        created: ISO time (UTC) of the last sample.
        version: of narrows.
        conditions: things to know when reading: load average, clocks, power, temperature.
    """

    experiment: Experiment
    machine: Machine
    ceilings: Ceilings | None
    weights: tuple[WeightRecord, ...]
    errors: tuple[OutputError, ...]
    rows: tuple[Row, ...]
    created: str
    version: str
    inputs: str = ""
    conditions: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    __pydantic_config__ = {"extra": "forbid"}

    def problem(self, tokens: int) -> Problem:
        """Return the problem at one length."""
        return self.experiment.problem(tokens)

    def error(self, tokens: int, rank: int, weight: str | None = None) -> OutputError | None:
        """Return the output error at one length and rank (default: the first weight)."""
        name = weight or self.experiment.weights[0].name
        for error in self.errors:
            if (error.tokens, error.rank, error.weight) == (tokens, rank, name):
                return error
        return None

    def to_json(self) -> str:
        """Return the report as one JSON document."""
        return sealed(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "report") -> Report:
        """Read what `to_json` wrote.

        Raises:
            FileError: not JSON, not a report, of a newer schema, or changed since; the text names the place.
        """
        return load_value(cls, text, source=source, schema=SCHEMA, is_sealed=True)
