"""The budget of a model as it is written on the command line: ppl=1%,keep=0.9,speedup=1.2,bytes=100MB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.cli._ranges import parse_bytes
from narrows.errors import InputError

if TYPE_CHECKING:
    from narrows._values import ModelBudget

PARTS = {"ppl": "perplexity", "keep": "keep", "speedup": "speedup", "bytes": "max_bytes"}


def parse_budget(text: str) -> ModelBudget:
    """Return a budget of comma-separated parts.

    Raises:
        InputError: a part that is not known or given twice, or is no number.
    """
    from narrows._values import ModelBudget

    found: dict[str, float | int] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in PARTS or not value:
            raise InputError(f"--budget={text!r}: {part.strip()!r} is none of {', '.join(f'{n}=...' for n in PARTS)}.")
        if PARTS[name] in found:
            raise InputError(f"--budget={text!r} gives {name} twice.")
        found[PARTS[name]] = parse_bytes(value, "bytes") if name == "bytes" else _number(value, text)
    return ModelBudget(**found)  # type: ignore[arg-type]


def _number(value: str, text: str) -> float:
    try:
        return float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        raise InputError(f"--budget={text!r}: {value!r} is not a number, as 0.9 or 1%.") from None
