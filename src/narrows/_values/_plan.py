"""The decision: for every number of tokens, dense or (rank, implementation), with reasons."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from narrows._values._budget import Budget
from narrows._values._json import load_value, sealed
from narrows._values._problem import Kind
from narrows.errors import InputError

SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """One row of a plan: what to run for `tokens_from` <= T <= `tokens_to`.

    Attributes:
        rank: None means dense.
        implementation: dense: the association; thin: the implementation's name (a hint bound
            to the plan's device).
        time_ns, dense_ns: measured medians at the measured length (at both ends: the worse
            of the two ends' shares); None between measured lengths.
        speedup, speedup_low, speedup_high: over dense, 99 % interval; 1.0 for dense.
        bytes: that the chosen weight or factors take.
        error: upper 95 % end of the output error; 0.0 for dense.
        reasons: why this and not another, one sentence each.
    """

    tokens_from: int
    tokens_to: int
    rank: int | None
    implementation: str
    time_ns: float | None
    dense_ns: float | None
    speedup: float
    speedup_low: float
    speedup_high: float
    bytes: int
    error: float
    reasons: tuple[str, ...]

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Plan:
    """A table tokens -> choice for one weight's shape, measured on one machine.

    Attributes:
        choices: ascending, without gaps, from the smallest to the largest measured length.
        fingerprint: of the machine that was measured: ranks are portable, names are not.
    """

    kind: Kind
    in_features: int
    out_features: int
    heads: int
    dtype: str
    mode: str
    cache: str
    weight: str
    budget: Budget
    choices: tuple[Choice, ...]
    fingerprint: str
    device_name: str
    version: str
    schema: int = SCHEMA

    __pydantic_config__ = {"extra": "forbid"}

    def at(self, tokens: int) -> Choice:
        """Return the choice for a number of tokens.

        Raises:
            InputError: `tokens` lies outside the measured lengths: nothing is known there.
        """
        for choice in self.choices:
            if choice.tokens_from <= tokens <= choice.tokens_to:
                return choice
        first, last = self.choices[0].tokens_from, self.choices[-1].tokens_to
        raise InputError(
            f"tokens={tokens} is outside {first}..{last}, the measured lengths of this plan. Measure there too."
        )

    @property
    def ranks(self) -> tuple[int, ...]:
        """Every rank the plan uses, ascending."""
        return tuple(sorted({c.rank for c in self.choices if c.rank is not None}))

    def to_json(self) -> str:
        """Return the plan as one JSON document."""
        return sealed(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "plan") -> Plan:
        """Read what `to_json` wrote.

        Raises:
            FileError: not JSON, not a plan, of a newer schema, or changed since; the text names the place.
        """
        return load_value(cls, text, source=source, schema=SCHEMA, is_sealed=True)
