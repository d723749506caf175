"""What was measured on one kind of device, as frozen records; also the document that is exported and shipped."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING

from narrows._values import Kind, Mode, dtype_name, load_value
from narrows._values._json import SEAL, seal_of
from narrows.errors import InputError
from narrows.kernels._config import Config, Tiles  # noqa: TC001 (pydantic reads them at run time)
from narrows.kernels.tuned._signature import Signature, cublas

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = 2
STRICT = {"extra": "forbid"}  # pydantic: a field that nobody knows is a fault
LARGEST_TILE, LARGEST_SPLIT, MOST_STAGES = 512, 256, 8
WARPS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Silicon:
    """What a device is, whatever runs on it: choices are valid for one silicon.

    Attributes:
        name: as the driver names it.
        capability: "sm_90".
        num_multiprocessors: a part of a device (MIG) has fewer.
        l2_bytes: of the L2 cache.
        memory_gib: rounded: a driver reserves a few MiB more or less.
        is_mig: a part of a divided device.
    """

    name: str
    capability: str
    num_multiprocessors: int
    l2_bytes: int
    memory_gib: int
    is_mig: bool = False

    __pydantic_config__ = STRICT

    def __str__(self) -> str:
        part = ", a MIG part" if self.is_mig else ""
        return (
            f"{self.name} ({self.capability}, {self.num_multiprocessors} multiprocessors, "
            f"{self.l2_bytes / (1 << 20):g} MiB L2, {self.memory_gib} GiB{part})"
        )


@dataclass(frozen=True, slots=True)
class Software:
    """The versions that a measurement belongs to; under others it is a hint only.

    Attributes:
        torch, triton, cuda, driver: versions; empty where unknown.
        kernels: hash of the kernels' source files.
    """

    torch: str
    triton: str
    cuda: str
    driver: str
    kernels: str

    __pydantic_config__ = STRICT

    def differences(self, other: Software) -> tuple[str, ...]:
        """Return what differs, one word group each: "torch 2.11 (now 2.12)"."""
        pairs = zip(asdict(self).items(), asdict(other).values(), strict=True)
        return tuple(f"{name} {mine or '-'} (now {now or '-'})" for (name, mine), now in pairs if mine != now)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One implementation, measured side by side with cuBLAS.

    Attributes:
        config: the best sizes of an own kernel; None for cuBLAS, which has none.
        median_ns: time of one call; None where it has no time, and `reason` says why.
        speedup, low, high: cuBLAS time / its time, with the 99 % interval over rounds; 1 for cuBLAS itself.
        rounds: that hold both.
        error: largest |error| / bound against float64.
        checked: its result was right in this measurement.
        reason: why it has no time.
    """

    config: Config | None
    median_ns: float | None
    speedup: float
    low: float
    high: float
    rounds: int
    error: float
    checked: bool
    reason: str = ""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.config is not None:
            check_config(self.config)
        if self.checked != (self.median_ns is not None) or (self.median_ns is not None and not self.median_ns > 0):
            raise InputError(
                f"median_ns={self.median_ns}, checked={self.checked}: only a right result has a time, > 0."
            )


@dataclass(frozen=True, slots=True)
class Entry:
    """One signature with every implementation that was measured for it.

    Attributes:
        kind ... mode: as in `Signature`, without the device's index.
        candidates: name -> what was measured; the cuBLAS one is always among them.
        software: that ran.
        measured: ISO time (UTC).
    """

    kind: Kind
    tokens: int
    other_tokens: int
    in_features: int
    out_features: int
    rank: int
    heads: int
    dtype: str
    mode: Mode
    candidates: dict[str, Candidate]
    software: Software
    measured: str

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        dtype_name(self.dtype)
        base = cublas(self.signature(0))
        if base not in self.candidates or self.candidates[base].median_ns is None:
            raise InputError(f"candidates={sorted(self.candidates)} must hold a time of {base!r}, the cuBLAS one.")
        sizes = (self.tokens, self.in_features, self.out_features, self.rank, self.heads)
        if min(sizes) < 1 or self.other_tokens < 0:
            raise InputError(f"tokens, features, rank, heads={sizes} must be at least 1.")

    def signature(self, device: int) -> Signature:
        """Return the signature on a device of this silicon."""
        sizes = (self.tokens, self.other_tokens, self.in_features, self.out_features, self.rank, self.heads)
        return Signature(self.kind, *sizes, self.dtype, self.mode, device)

    @property
    def winner(self) -> str:
        """The fastest: an own kernel only where it beats cuBLAS beyond a tie, 99 % sure."""
        base = cublas(self.signature(0))
        faster = [name for name in self.candidates if self.beats_cublas(name)]
        return max(faster, key=lambda name: self.candidates[name].speedup, default=base)

    def beats_cublas(self, name: str) -> bool:
        """Say whether an own kernel was right and faster than cuBLAS beyond a tie."""
        from narrows._stats import Ratio

        found = self.candidates.get(name)
        if found is None or found.config is None or not found.checked:
            return False
        return Ratio(found.speedup, found.low, found.high, found.rounds).verdict == "faster"


@dataclass(frozen=True, slots=True)
class Tuning:
    """The choices of one silicon: what `narrows tune --export` writes and what is shipped."""

    silicon: Silicon
    entries: tuple[Entry, ...]
    version: str
    schema: int = SCHEMA

    __pydantic_config__ = STRICT

    def to_json(self) -> str:
        """Return the choices as one JSON document, an entry a line."""
        head = {"schema": self.schema, "version": self.version, "silicon": asdict(self.silicon)}
        lines = ",\n".join(f"  {json.dumps(asdict(entry))}" for entry in self.entries)
        seal = seal_of(asdict(self))
        return f'{json.dumps(head, indent=1)[:-2]},\n "entries": [\n{lines}\n ],\n "{SEAL}": "{seal}"\n}}\n'

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "tuning") -> Tuning:
        """Read what `to_json` wrote.

        Raises:
            FileError: not JSON, not such a document, or of a newer schema; the text names the place.
        """
        return load_value(cls, text, source=source, schema=SCHEMA, is_sealed=True)


def entry_of(text: str) -> Entry:
    """Return the entry that a row of the store holds.

    Raises:
        ValueError: it is none.
    """
    return _entry_adapter().validate_json(text, strict=True)


@cache
def _entry_adapter() -> TypeAdapter[Entry]:
    """Return what reads entries: it takes 5 ms to make, a hundred times as long as to use."""
    from pydantic import TypeAdapter

    return TypeAdapter(Entry)


def check_config(config: Config) -> None:
    """Pass sizes that a kernel could be launched with: a file must not make one of any size.

    Raises:
        InputError: names the size.
    """
    for part, tiles in (("project", config.project), ("second", config.second)):
        _check_tiles(part, tiles)


def _check_tiles(part: str, tiles: Tiles) -> None:
    for name in ("m", "n", "k"):
        size = getattr(tiles, name)
        if not 16 <= size <= LARGEST_TILE or size & (size - 1):
            raise InputError(f"{part}.{name}={size} must be a power of two within 16..{LARGEST_TILE}.")
    if not 1 <= tiles.split <= LARGEST_SPLIT:
        raise InputError(f"{part}.split={tiles.split} must be within 1..{LARGEST_SPLIT}.")
    if tiles.warps not in WARPS or not 1 <= tiles.stages <= MOST_STAGES:
        raise InputError(
            f"{part}.warps={tiles.warps} must be one of {', '.join(map(str, WARPS))}, "
            f"stages={tiles.stages} within 1..{MOST_STAGES}."
        )
