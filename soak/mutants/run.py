"""Runs mutants, and keeps what became of each as a line of JSON, so that a run that was stopped goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from soak.mutants.slot import Pool
    from soak.mutants.source import Mutant


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        state: of the tree it was run in.
        name, file, line, kind, before, after: of the mutant.
        outcome: "killed"; "hangs": killed by a limit; "survived"; "no tests": none runs its lines.
        by: the test that failed, or ran out of time.
        why: its message.
        tests: how many could have failed.
        seconds: the run took.
    """

    state: str
    name: str
    file: str
    line: int
    kind: str
    before: str
    after: str
    outcome: str
    by: str
    why: str
    tests: int
    seconds: float

    @property
    def is_killed(self) -> bool:
        """Return whether a test noticed."""
        return self.outcome in {"killed", "hangs"}

    def __str__(self) -> str:
        return f"{self.file}:{self.line} [{self.name}] - {self.before} + {self.after} ({self.outcome})"


Job = tuple["Mutant", "Mapping[str, float]"]  # with its tests and their limits in seconds, in order


def run(pool: Pool, jobs: Sequence[Job], *, state: str, record: Path | None) -> Iterator[Outcome]:
    """Yield what became of every mutant, as it comes; those that the record holds in this state first.

    Args:
        record: file of JSON lines that is read and appended to; None: nothing is kept.
    """
    held = _held(record, state)
    yield from (held[mutant.name] for mutant, _ in jobs if mutant.name in held)
    left = [job for job in jobs if job[0].name not in held]
    yield from _kept(_without_tests(left, state), record)
    yield from _kept(_tested(pool, [job for job in left if job[1]], state), record)


def _without_tests(jobs: Sequence[Job], state: str) -> Iterator[Outcome]:
    for mutant, tests in jobs:
        if not tests:
            yield _outcome(mutant, state, outcome="no tests", by="", why="", tests=0, seconds=0.0)


def _tested(pool: Pool, jobs: Sequence[Job], state: str) -> Iterator[Outcome]:
    tasks = [({"do": "test", "files": _files(tests), "limits_s": tests}, {m.file: m.text}) for m, tests in jobs]
    for index, answer in pool.answers(tasks):
        mutant, tests = jobs[index]
        yield _outcome(mutant, state, tests=len(tests), **answer)


def _outcome(mutant: Mutant, state: str, **found: object) -> Outcome:
    told = {name: getattr(mutant, name) for name in ("name", "file", "line", "kind", "before", "after")}
    return Outcome(state=state, **told, **found)  # type: ignore[arg-type]


def _kept(outcomes: Iterator[Outcome], record: Path | None) -> Iterator[Outcome]:
    for outcome in outcomes:
        if record is not None:
            record.parent.mkdir(parents=True, exist_ok=True)
            with record.open("a") as file:
                print(json.dumps(asdict(outcome)), file=file)
        yield outcome


def _held(record: Path | None, state: str) -> dict[str, Outcome]:
    if record is None or not record.exists():
        return {}
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return {line["name"]: Outcome(**line) for line in lines if line["state"] == state}


def _files(tests: Mapping[str, float]) -> list[str]:
    return list(dict.fromkeys(name.split("::", maxsplit=1)[0] for name in tests))
