"""Values as users write them: `64..4096`, `64,100,4096`, `64x96`, `64MB`. No click here: errors are InputErrors."""

from __future__ import annotations

import re

from narrows.errors import InputError

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)}
_UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)}
_MOST = 1 << 40


def parse_range(text: str, name: str) -> tuple[int, ...]:
    """Return the values of `A..B` (A, 2A, 4A, ... up to B) and of commas, ascending, each once.

    B itself is a value only where doubling reaches it: `64..1000` is 64, 128, 256, 512; write
    `64..512,1000` to have 1000 too.

    Args:
        name: what an error calls the values ("--tokens").

    Raises:
        InputError: not such a range, or a value below 1.
    """
    values: set[int] = set()
    for part in text.split(","):
        values.update(_part(part.strip(), text, name))
    return tuple(sorted(values))


def _part(part: str, text: str, name: str) -> list[int]:
    match = re.fullmatch(r"([0-9]{1,13})(?:\.\.([0-9]{1,13}))?", part)
    if match is None:
        raise InputError(
            f"{name}={text!r}: {part!r} is neither a whole number nor a range A..B. "
            "Write 64..4096 (doubles from 64 through 4096) or 64,100,4096."
        )
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= _MOST:
        raise InputError(f"{name}={text!r}: {part!r} needs 1 <= A <= B <= {_MOST} in A..B, and values of at least 1.")
    values = [first]
    while values[-1] * 2 <= last:
        values.append(values[-1] * 2)
    return values


def parse_bytes(text: str, name: str) -> int:
    """Return a number of bytes: `4096`, `64MB` (10^6), `64MiB` (2^20), `1.5GB`.

    Raises:
        InputError: not a size, or below one byte.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)", text.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    num_bytes = int(float(match[1]) * unit) if match and unit else 0
    if num_bytes < 1:
        raise InputError(
            f"{name}={text!r} is not a size of at least one byte. Write 64MB (10^6), 64MiB (2^20) or bytes."
        )
    return num_bytes


def parse_words(text: object, known: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Return the words of a comma list, each once.

    Raises:
        InputError: one of them is not in `known`.
    """
    words = tuple(dict.fromkeys(word.strip() for word in str(text).split(",")))
    for word in words:
        if word not in known:
            raise InputError(f"{name}={text!r}: {word!r} is not one of {', '.join(known)} (commas list several).")
    return words


def parse_shape(shape: object) -> tuple[int, int]:
    """Return (D, E) of `DxE`; 4096x4096 for None.

    Raises:
        InputError: not two whole numbers of at least 1.
    """
    parts = str(shape or "4096x4096").lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--shape={shape!r} must be DxE, e.g. 4096x14336 (input x output features).")
    return int(parts[0]), int(parts[1])
