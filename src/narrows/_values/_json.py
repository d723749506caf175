"""Reading a record from JSON that anyone may have written: checked, with the place of a fault."""

from __future__ import annotations

import json
from typing import TypeVar

from narrows.errors import FileError

T = TypeVar("T")


def load_value(kind: type[T], text: str | bytes, *, source: str, schema: int) -> T:
    """Return the record of class `kind` that a JSON document holds.

    Args:
        source: what to call the document in an error, usually its path.
        schema: the newest schema number this version reads.

    Raises:
        FileError: not JSON (or cut short), a newer schema, or not such a record.
    """
    from pydantic import TypeAdapter, ValidationError  # 0.09 s to start and import, only readers pay

    name = kind.__name__.lower()
    try:
        data = json.loads(text)
    except ValueError as fault:
        raise FileError(
            f"{source} is not a complete JSON document ({fault}). It was cut short or is not a narrows {name}: "
            "make it again."
        ) from None
    if not isinstance(data, dict) or "schema" not in data:
        raise FileError(f"{source} is JSON but not a narrows {name} (it has no schema number).")
    if not isinstance(data["schema"], int) or data["schema"] > schema:
        raise FileError(
            f"{source} has schema {data['schema']!r}; this version of narrows reads up to {schema}. Update narrows."
        )
    try:
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as faults:
        first = faults.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FileError(
            f"{source} is not a valid narrows {name}: {first['msg']} at {place or 'the top'} "
            f"({faults.error_count()} faults in all). Use the file as narrows wrote it."
        ) from None
