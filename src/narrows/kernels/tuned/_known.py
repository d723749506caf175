"""What is known of a device: this user's measurements and the shipped ones, read once a process."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from narrows.errors import NarrowsError
from narrows.kernels.tuned import _device, _store
from narrows.kernels.tuned._records import Tuning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from narrows.kernels.tuned._records import Entry, Silicon, Software

DEFAULTS = Path(__file__).parent / "defaults"
Origin = Literal["measured", "shipped"]


@dataclass(frozen=True, slots=True)
class Known:
    """One choice and where it comes from.

    Attributes:
        origin: "measured" (in this user's store) or "shipped".
        differences: versions it was measured with that are others now; empty: it is current.
    """

    entry: Entry
    origin: Origin
    differences: tuple[str, ...]

    @property
    def is_stale(self) -> bool:
        """Measured with other versions: a hint, until `narrows tune` measures it again."""
        return bool(self.differences)


def known(device: int) -> tuple[Known, ...]:
    """Return every choice that calls on a CUDA device use, one a signature, in the order of signatures.

    Where both have one, the current one counts; of two alike, the user's. A store that cannot be read
    is one warning.

    Raises:
        DeviceError: the device is not there.
    """
    silicon, software = _device.silicon(device), _device.software(device)
    found = _as_known(shipped(silicon), "shipped", software)
    if _store.is_used():
        found = [*found, *_as_known(_measured(silicon), "measured", software)]
    # The last one of a signature stays: stale before current, shipped before measured.
    ordered = sorted(found, key=lambda k: (not k.is_stale, k.origin == "measured"))
    by_signature = {k.entry.signature(device): k for k in ordered}
    return tuple(by_signature[signature] for signature in sorted(by_signature))


def shipped(silicon: Silicon, folder: Path = DEFAULTS) -> tuple[Entry, ...]:
    """Return the choices that this version of narrows brings for a silicon."""
    for path in sorted(folder.glob("*.json")):
        tuning = Tuning.from_json(path.read_bytes(), source=str(path))
        if tuning.silicon == silicon:
            return tuning.entries
    return ()


def summary(found: Iterable[Known]) -> str:
    """Return how many choices there are and where they come from, in words."""
    kinds = [(k.origin, k.is_stale) for k in found]
    texts = []
    for origin, words in (("measured", "measured here"), ("shipped", "shipped")):
        count, stale = kinds.count((origin, False)), kinds.count((origin, True))  # type: ignore[arg-type]
        if count + stale:
            texts.append(f"{count + stale} {words}" + (f" ({stale} stale)" if stale else ""))
    return ", ".join(texts) or "none: narrows tune measures them"


def _as_known(entries: Iterable[Entry], origin: Origin, software: Software) -> list[Known]:
    return [Known(entry, origin, entry.software.differences(software)) for entry in entries]


def _measured(silicon: Silicon) -> tuple[Entry, ...]:
    path = _store.default_path()
    try:
        contents = _store.read(path, silicon)
    except NarrowsError as fault:
        warnings.warn(f"{fault} Until then, calls use the choices that narrows brings.", RuntimeWarning, stacklevel=2)
        return ()
    if contents.faults:
        warnings.warn(
            f"{len(contents.faults)} of the tuned choices in {path} are damaged and not used "
            f"({contents.faults[0]}). Start over: narrows tune --clear, then narrows tune.",
            RuntimeWarning,
            stacklevel=2,
        )
    return contents.entries
