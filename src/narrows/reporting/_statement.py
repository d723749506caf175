"""What a statement of the origin is: its words and the pure function that judges them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from narrows.reporting._statements_facts import Facts

Kind = Literal["measurement", "law", "recommendation", "contradiction"]
Verdict = Literal["holds", "refuted", "cannot tell"]
Answer = tuple[Verdict, str]


@dataclass(frozen=True, slots=True)
class Statement:
    """The origin's words and how the data answers them.

    Attributes:
        judge: returns the verdict and its figures; raises NotCovered for "cannot tell".
    """

    quote: str
    kind: Kind
    judge: Callable[[Facts], Answer]


def answer(holds: bool, figures: str) -> Answer:
    """Return "holds" or "refuted" with the figures."""
    return ("holds" if holds else "refuted"), figures
