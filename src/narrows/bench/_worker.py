"""The child process, as `_client` starts it. One JSON request a line in, one JSON answer a line out.

It alone touches tensors and the device. Standard output carries answers only: whatever a library
prints goes to standard error. When the parent dies, so does it.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from narrows.bench._session import Session


def _die_before_parent() -> None:
    """Ask Linux to end this process first when memory runs out: the parent has what is measured, and goes on."""
    with suppress(OSError):  # a system without it chooses by size
        Path("/proc/self/oom_score_adj").write_text("900", encoding="ascii")


def _own_stdout() -> TextIO:
    """Keep the pipe to the parent for answers and send every other print to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


class _Server:
    """Answers requests by name; holds the session between them."""

    def __init__(self) -> None:
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        assert self._session is not None, "open comes first"
        return self._session

    def open(self, experiment: str, folder: str) -> dict[str, Any]:
        from pydantic import TypeAdapter

        from narrows._machine import machine
        from narrows._values import Experiment
        from narrows.bench._session import Session

        asked = TypeAdapter(Experiment).validate_json(experiment)
        here = machine(asked.device)
        self._session = Session(asked, Path(folder))
        return {"machine": asdict(here), **self._session.describe()}

    def ceilings(self) -> dict[str, Any]:
        from narrows._machine import ceilings

        asked = self.session.experiment
        return asdict(ceilings(asked.device, asked.dtype))

    def share_of_float32(self) -> float | None:
        """Return how fast a slow dtype is beside float32; None for one that is fast here."""
        from narrows._machine import probe_dtypes

        asked = self.session.experiment
        probe = next(found for found in probe_dtypes(asked.device) if found.dtype == asked.dtype)
        return None if probe.is_fast else probe.ratio

    def conditions(self) -> dict[str, str]:
        from narrows._machine import conditions

        return conditions(self.session.experiment.device)

    def prepare(self, index: int) -> dict[str, Any]:
        record, errors = self.session.prepare(index)
        return {"weight": asdict(record), "errors": [asdict(error) for error in errors]}

    def load_factors(self) -> dict[str, Any]:
        self.session.load_factors()
        return {}

    def check(self, point: dict[str, Any]) -> dict[str, Any]:
        from narrows.bench._point import Point

        return asdict(self.session.check(Point(**point)))

    def sample(self, point: dict[str, Any]) -> dict[str, Any]:
        from narrows.bench._point import Point

        ns, calls = self.session.sample(Point(**point))
        return {"ns": ns, "calls": calls}

    def peak(self, experiment: str, point: dict[str, Any]) -> dict[str, Any]:
        from narrows.bench._memory import peak_bytes

        return {"bytes": peak_bytes(experiment, point)}


def _answer(handlers: _Server, line: str) -> dict[str, Any]:
    from narrows._machine import first_line, is_shortage
    from narrows.errors import NarrowsError

    request = json.loads(line)
    handler: Callable[..., Any] = getattr(handlers, request.pop("do"))
    try:
        return {"ok": handler(**request)}
    except NarrowsError as fault:
        return {"error": type(fault).__name__, "message": str(fault)}
    except (RuntimeError, MemoryError) as fault:  # a backend's own failure costs this request, not the run
        message = first_line(fault)
        return {"error": type(fault).__name__, "message": message, "is_shortage": is_shortage(fault)}


def main() -> None:
    """Answer until standard input ends."""
    _die_before_parent()
    answers = _own_stdout()
    handlers = _Server()
    for line in sys.stdin:
        answers.write(json.dumps(_answer(handlers, line)) + "\n")
        answers.flush()
