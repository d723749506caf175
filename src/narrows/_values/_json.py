"""Records as JSON documents: sealed where they are written; checked, with the place of a fault, where they are read."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from narrows._values._foreign import shown
from narrows.errors import FileError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import SchemaValidator

T = TypeVar("T")
_validators: dict[type, SchemaValidator] = {}

MOST_BYTES = 64 << 20  # of a document, which can take 25 times as much memory; the largest recorded report has 1.3 MB
MOST_TOLD = 1000  # faults of a document that are looked at
SEAL = "sha256"
LONGEST_END = 1000  # characters in which the seal stands, spaces included
_END = re.compile(rf',\s*"{SEAL}"\s*:\s*"[0-9a-f]*"\s*}}\s*\Z')
SEALED_SINCE = 2  # the schema number from which every document carries a seal


def sealed(fields: dict[str, Any], **style: Any) -> str:
    """Return a record's fields as JSON text with their seal at the end.

    Args:
        fields: plain values.
        style: of `json.dumps`: indent, separators.
    """
    return json.dumps({**fields, SEAL: seal_of(fields)}, **style)


def seal_of(fields: dict[str, Any]) -> str:
    """Return 64 hex digits of the SHA-256 of plain values; line ends and spaces of a document do not count."""
    plain = json.loads(json.dumps(fields))  # as a reader sees it: keys are texts, tuples are lists
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def document(text: str | bytes) -> Any:
    """Return what a JSON document in UTF-8 holds.

    Raises:
        ValueError: it is none, too large or too deep, or an object has a key twice (readers would see different ones).
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it has {len(text):,} bytes, more than {MOST_BYTES:,}")
    try:
        return json.loads(text if isinstance(text, str) else text.decode(), object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def load_value(kind: type[T], text: str | bytes, *, source: str, schema: int, is_sealed: bool = False) -> T:
    """Return the record of class `kind` that a JSON document holds.

    Args:
        source: what to call the document in an error, usually its path.
        schema: the newest schema number this version reads.
        is_sealed: from schema 2 on, the document is one that `sealed` made; the record is of the newest schema.

    Raises:
        FileError: not JSON (or cut short), a newer schema, not such a record, or changed since it was written.
    """
    name = kind.__name__.lower()
    fields = _fields(text, source=source, name=name, schema=schema)
    if not is_sealed or fields["schema"] < SEALED_SINCE:
        found = _validated(kind, text, source=source, name=name)
        return replace(found, schema=schema) if is_sealed else found  # type: ignore[type-var]
    found = _validated(kind, _without_seal(text), source=source, name=name)  # first: it names the place of a fault
    if fields.pop(SEAL, None) != seal_of(fields):
        raise FileError(
            f"{source} was changed after it was written: its SHA-256 is not the one it ends with. Use the file as "
            "narrows wrote it, or make it again."
        )
    return found


def _without_seal(text: str | bytes) -> str:
    """Return a document without its last entry, if that is a seal."""
    whole = text if isinstance(text, str) else text.decode()
    found = _END.search(whole, max(len(whole) - LONGEST_END, 0))
    return whole if found is None else f"{whole[: found.start()]}}}"


def _fields(text: str | bytes, *, source: str, name: str, schema: int) -> dict[str, Any]:
    """Return a document's fields; its schema number is one that this version reads."""
    try:
        data = document(text)
    except ValueError as fault:
        raise FileError(
            f"{source} is not a complete JSON document ({shown(fault)}). It was cut short or is not a narrows {name}: "
            "make it again."
        ) from None
    if not isinstance(data, dict) or "schema" not in data:
        raise FileError(f"{source} is JSON but not a narrows {name} (it has no schema number).")
    found = data["schema"]
    if type(found) is not int or not 1 <= found <= schema:
        raise FileError(
            f"{source} has schema {shown(repr(found))}; this version of narrows reads up to {schema}. Update narrows."
        )
    return data


def _validated(kind: type[T], text: str | bytes, *, source: str, name: str) -> T:
    from pydantic import ValidationError  # 0.09 s to start and import, only readers pay

    try:
        found: T = _validator(kind).validate_json(text, strict=True)
    except ValidationError as faults:
        raise FileError(
            f"{source} is not a valid narrows {name}: {_first(faults)}({faults.error_count()} faults in all). Use the "
            "file as narrows wrote it."
        ) from None
    return found


def _validator(kind: type) -> SchemaValidator:
    """Return what checks records of a class; made once, in some milliseconds."""
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    if kind not in _validators:
        _validators[kind] = SchemaValidator(_at_first_fault(TypeAdapter(kind).core_schema))
    return _validators[kind]


def _at_first_fault(schema: Any) -> Any:
    """Return a schema of pydantic's core whose lists stop at their first fault: each one told takes about 0.5 KB."""
    if isinstance(schema, (list, tuple)):
        return type(schema)(map(_at_first_fault, schema))
    if not isinstance(schema, dict):
        return schema
    made = {key: _at_first_fault(value) for key, value in schema.items()}
    return made | {"fail_fast": True} if made.get("type") in {"list", "tuple"} else made


def _first(faults: ValidationError) -> str:
    """Return the first fault and its place; nothing where there are so many that telling them takes 1 KB each."""
    if faults.error_count() > MOST_TOLD:
        return ""
    first = faults.errors(include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{shown(first['msg'])} at {shown(place) or 'the top'} "


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)!r} stands there twice")
    return found
