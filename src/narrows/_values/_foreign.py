"""Text from foreign files as a part of a message."""

from __future__ import annotations

LONGEST = 200  # characters


def shown(text: object, most: int = LONGEST) -> str:
    """Return foreign text on one line, without control characters, cut after `most` characters."""
    whole = str(text)
    line = "".join(one if one.isprintable() else " " for one in whole[: most + 1])
    return line if len(line) <= most else f"{line[:most]}..."
