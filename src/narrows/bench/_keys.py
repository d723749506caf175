"""What makes two measurements the same: a hash over content and conditions, never over names or paths."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import narrows

if TYPE_CHECKING:
    from narrows._values import Experiment
    from narrows.bench._point import Point


def digest(parts: dict[str, Any]) -> str:
    """Return a short hash of plain values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


MEASURE = 1  # raise when a change of the timers or the checks makes older samples another measurement


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one experiment on one machine.

    Attributes:
        fingerprint: of the machine.
        weights: content hash of each weight; the first one is timed.
        inputs: content hash of x and y.
    """

    experiment: Experiment
    fingerprint: str
    weights: tuple[str, ...]
    inputs: str

    def _base(self, weight: str) -> dict[str, Any]:
        asked = self.experiment
        return {
            "version": f"{narrows.__version__} {MEASURE}",
            "machine": self.fingerprint,
            "kind": asked.kind,
            "shape": [asked.in_features, asked.out_features, asked.other_tokens, asked.heads, asked.kv_heads],
            "dtype": asked.dtype,
            "seed": asked.seed,
            "weight": weight,
            "input": self.inputs,
        }

    def point(self, point: Point) -> str:
        """Return the key of one row."""
        return digest({**self._base(self.weights[0]), **point.to_json()})

    def weight(self, index: int) -> str:
        """Return the key of a weight's record and its errors at every length and rank."""
        lengths = {"tokens": self.experiment.tokens, "ranks": self.experiment.ranks}
        return digest({**self._base(self.weights[index]), **lengths})

    def run(self, what: str) -> str:
        """Return the key of something that belongs to the experiment as a whole."""
        asked = self.experiment
        lengths = {"tokens": asked.tokens, "ranks": asked.ranks, "modes": asked.modes, "caches": asked.caches}
        return digest({**self._base(":".join(self.weights)), **lengths, "what": what})
