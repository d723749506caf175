"""What is still to measure, in which order, until when; each choice is kept as it is made."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import torch

from narrows import kernels
from narrows._values import Problem
from narrows.bench._sweep import Progress
from narrows.bench._tune_case import Case
from narrows.bench._tune_contest import Contest
from narrows.bench._tune_search import PERSISTENT
from narrows.errors import ResourceError
from narrows.kernels import tuned
from narrows.kernels.tuned import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from narrows._values import Kind
    from narrows.kernels.tuned import Candidate, OwnKernel, Signature, Silicon, Software


PERSISTENT_TOKENS = 512  # below, its tiles of 64 rows or more leave most of a device idle


class Tuner:
    """Measures signatures on one device and keeps each choice as it is made.

    Args:
        device: to measure on, the current one.
        silicon, software: of the device.
        path: of the store.
        seconds: after which no further signature is begun.
        progress: called before every step.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        silicon: Silicon,
        software: Software,
        path: Path,
        seconds: float,
        progress: Callable[[Progress], None],
    ) -> None:
        self._device, self._silicon, self._software, self._path = device, silicon, software, path
        self._seconds, self._progress = seconds, progress
        self._started = time.monotonic()
        self._contest = Contest(say=self._say)
        self._known = self._kept()

    def run(self, wanted: Iterable[Signature], *, again: bool = False) -> tuple[Entry, ...]:
        """Measure what is missing and return what is known of the signatures.

        Processes that tune the same silicon take turns, call by call: none measures what another one has.
        """
        asked = list(dict.fromkeys(wanted))
        missing = [signature for signature in asked if self._missing(signature, again=again)]
        if not missing:
            self._notice("nothing left to measure: every choice was made with these versions (--again measures anew)")
        for number, signature in enumerate(missing):
            with tuned.turn(self._path, self._silicon, waiting=self._wait):
                if self._spent() >= self._seconds:
                    left = f"{len(missing) - number} of {len(missing)}"
                    self._notice(f"the time is spent: {left} calls are left; run it again")
                    break
                self._contest.title = f"{number + 1} of {len(missing)}: {signature}"
                self._known |= self._checked()
                self._measure(signature, self._missing(signature, again=again))
        self._checked()
        return tuple(self._known[signature] for signature in asked if signature in self._known)

    def _checked(self) -> dict[Signature, Entry]:
        """Return what the store holds now, which must be all that was kept.

        Raises:
            ResourceError: it is not.
        """
        found = self._kept()
        if gone := self._known.keys() - found.keys():
            raise ResourceError(
                f"the tuned choices in {self._path} are gone: the file was deleted or replaced, or its disk went away, "
                f"while this run wrote into it. Lost: {len(gone)}. Put it back, or run the same again."
            )
        return found

    def _kept(self) -> dict[Signature, Entry]:
        """Return what the store holds now."""
        return {one.signature(self._device.index or 0): one for one in tuned.read(self._path, self._silicon).entries}

    def _missing(self, signature: Signature, *, again: bool) -> tuple[str, ...]:
        """Return which implementations have no result of these versions."""
        names = (tuned.cublas(signature), *(kernel.name for kernel in self._own_kernels(signature)))
        entry = self._known.get(signature)
        if again or entry is None or entry.software != self._software:
            return names
        return tuple(name for name in names if name not in entry.candidates)

    def _own_kernels(self, signature: Signature) -> list[OwnKernel]:
        problem = Problem(
            cast("Kind", signature.kind),
            signature.tokens,
            signature.in_features,
            signature.out_features,
            other_tokens=signature.other_tokens or None,
            heads=signature.heads,
            dtype=signature.dtype,
            device=str(self._device),
        )
        found = [kernel for kernel in kernels.kernels_for(problem.kind) if hasattr(kernel, "run_with")]
        # Its launches are not replayed: launched by the host, they cost more than they save.
        if signature.tokens < PERSISTENT_TOKENS or signature.mode == "eager":
            found = [kernel for kernel in found if kernel.name != PERSISTENT]
        return [cast("OwnKernel", kernel) for kernel in found if not kernel.refuses(problem)]

    def _measure(self, signature: Signature, names: tuple[str, ...]) -> None:
        """Measure implementations, if any are left, beside cuBLAS; keep them with what is known of the others."""
        if not names:
            return
        own = [kernel for kernel in self._own_kernels(signature) if kernel.name in names]
        try:
            case = Case(signature, self._device, cache_bytes=self._silicon.l2_bytes)
            candidates = self._contest.candidates(case, own, self._hints(signature))
        except torch.OutOfMemoryError:
            self._notice(f"left out: {signature} does not fit the device's free memory")
            return
        if tuned.cublas(signature) not in names:  # only what was missing is new
            candidates = {**candidates, **self._known[signature].candidates}
        entry = self._entry(signature, candidates)
        tuned.write(self._path, self._silicon, [entry])
        self._known[signature] = entry

    def _hints(self, signature: Signature) -> tuned.Neighbours:
        return tuned.neighbours(signature, self._known.values())

    def _entry(self, signature: Signature, candidates: dict[str, Candidate]) -> Entry:
        fields = signature._asdict()
        del fields["device"]
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Entry(**fields, candidates=candidates, software=self._software, measured=now)

    def _spent(self) -> float:
        return time.monotonic() - self._started

    def _wait(self) -> None:
        self._say("another process tunes this device: waiting for its turn")

    def _say(self, text: str) -> None:
        self._progress(Progress(text, self._spent(), self._seconds))

    def _notice(self, text: str) -> None:
        self._progress(Progress(text, self._spent(), self._seconds, is_notice=True))
