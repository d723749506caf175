"""A run over sources and kernels: what is mutated, by what it is tested, and how it is counted."""

from __future__ import annotations

import importlib.util
import shlex
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soak._figure import Figure
from soak.mutants.cover import Cover, cover, state
from soak.mutants.kernels import LEFT_OUT, commented, harmless, planted
from soak.mutants.run import Outcome, run
from soak.mutants.slot import Pool, pool
from soak.mutants.source import Mutant, mutants, sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from soak.mutants.kernels import Planted
    from soak.mutants.run import Job

ROOT = Path(__file__).parents[2]
KNOWN = Path(__file__).with_name("known.toml")
PARTS = ("ops", "decompose", "planning", "_files")  # of src/narrows
TESTS = ("ops", "decompose", "planning", "files", "nn")  # folders of tests that run them
COMMENTED = (  # files that most tests of their part run
    "src/narrows/ops/_checks.py",
    "src/narrows/decompose/_spectrum.py",
    "src/narrows/planning/_frontier.py",
    "src/narrows/_files/_atomic.py",
)
NUMBER = 300
LEAST = 0.85  # of the sample: killed
RECORD, COVER = Path("build/mutants.jsonl"), Path("build/mutants-cover.json")


@dataclass(frozen=True)
class Session:
    """What every part of a run needs.

    Attributes:
        tree: the copy that mutants are made of.
        state: of the copy.
        record: file that outcomes are kept in; None: nothing is kept.
    """

    pool: Pool
    cover: Cover
    tree: Path
    state: str
    record: Path | None = RECORD

    def sources(self, chosen: Sequence[Mutant]) -> list[Outcome]:
        """Return what becomes of mutants of sources under the tests that run their lines."""
        return self._outcomes([(mutant, self.cover.of(mutant)) for mutant in chosen])

    def kernels(self, chosen: Sequence[Planted]) -> list[Outcome]:
        """Return what becomes of wrong kernels under the tests that must catch them."""
        return self._outcomes([(one.mutant, self.cover.within(one.tests, LEFT_OUT)) for one in chosen])

    def _outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        return list(run(self.pool, jobs, state=self.state, record=self.record))


@contextmanager
def session(jobs: int) -> Iterator[Session]:
    """Give a session over all that is mutated."""
    with pool(ROOT, jobs) as slots:
        found = cover(slots, source_tests(slots.tree), COVER, timed=kernel_tests(slots.tree))
        yield Session(slots, found, slots.tree, state(slots.tree))


def figures(seed: int, scale: float, jobs: int) -> Iterator[Figure]:
    """Yield the figures of all wrong kernels, of changes that change nothing, and of a sample of sources."""
    with session(jobs) as now:
        yield _unchanged(now.cover)
        yield _kernels(now, scale)
        yield _harmless(now)
        yield _sources(now, seed, scale)


def source_files(tree: Path) -> list[str]:
    """Return the files that are mutated."""
    return [
        str(path.relative_to(tree)) for part in PARTS for path in sorted((tree / "src/narrows" / part).glob("*.py"))
    ]


def source_tests(tree: Path) -> list[str]:
    """Return the files of tests that run the sources."""
    return sorted(str(path.relative_to(tree)) for part in TESTS for path in (tree / "tests" / part).glob("test_*.py"))


def kernel_tests(tree: Path) -> list[str]:
    """Return the other files of tests that wrong kernels run."""
    return sorted({file for one in planted(tree) for file in one.tests} - set(source_tests(tree)))


def known() -> dict[tuple[str, str, str], str]:
    """Return the reason why a surviving mutant changes nothing, by file and both texts of its line."""
    listed = tomllib.loads(KNOWN.read_text())["known"]
    return {(one["file"], one["before"], one["after"]): one["reason"] for one in listed}


def _unchanged(found: Cover) -> Figure:
    failing = len(found.failing)
    return Figure(
        part="mutants",
        name="tests that pass before anything is changed",
        asked="all",
        reached=f"all but {failing}" if failing else "all",
        status="failed" if failing else "ok",
        count=len(found.tests) + failing,
        details=tuple(f"{name}: {why}" for name, why in sorted(found.failing.items())),
    )


def _kernels(now: Session, scale: float) -> Figure:
    name, asked = "wrong kernels that a check catches", "all"
    if not _has_triton():
        return Figure(part="mutants", name=name, asked=asked, reached="no Triton here", status="not shown")
    chosen = planted(now.tree)
    outcomes = now.kernels(chosen[: max(1, round(scale * len(chosen)))])
    missed = [one for one in outcomes if not one.is_killed]
    return Figure(
        part="mutants",
        name=name,
        asked=asked,
        reached=f"{len(outcomes) - len(missed)} of {len(outcomes)}",
        status="failed" if missed else "ok",
        count=len(outcomes),
        details=(*(str(one) for one in missed), *_again(missed)),
    )


def _harmless(now: Session) -> Figure:
    outcomes = now.sources([commented(now.tree, file) for file in COMMENTED])
    if _has_triton():
        outcomes += now.kernels(harmless(now.tree))
    alarms = [one for one in outcomes if one.is_killed]
    return Figure(
        part="mutants",
        name="files with a comment more that the tests pass",
        asked="all",
        reached=f"{len(outcomes) - len(alarms)} of {len(outcomes)}",
        status="failed" if alarms else "ok",
        count=len(outcomes),
        details=tuple(f"{one.file}: {one.by}: {one.why}" for one in alarms),
    )


def _sources(now: Session, seed: int, scale: float) -> Figure:
    outcomes = now.sources(sample(mutants(now.tree, source_files(now.tree)), max(1, round(NUMBER * scale)), seed))
    survivors = [one for one in outcomes if not one.is_killed]
    reasons = known()
    explained = [one for one in survivors if _key(one) in reasons]
    share = 1 - len(survivors) / len(outcomes)
    hanging = sum(one.outcome == "hangs" for one in outcomes)
    return Figure(
        part="mutants",
        name=f"mutants of {', '.join(PARTS)} that a test kills",
        asked=f"{LEAST:.0%}",
        reached=f"{len(outcomes) - len(survivors)}, {share:.1%}, {hanging} of them by time; {len(survivors)} live, "
        f"{len(explained)} of them known to change nothing",
        status="ok" if share >= LEAST else "failed",
        count=len(outcomes),
        details=(*(_told(one, reasons) for one in sorted(survivors, key=_place)), *_again(survivors)),
    )


def _told(one: Outcome, reasons: dict[tuple[str, str, str], str]) -> str:
    return f"{one}{': ' + reasons[_key(one)] if _key(one) in reasons else ''}"


def _again(missed: Sequence[Outcome]) -> list[str]:
    """Return the command that repeats them."""
    return [f"again: python -m soak.mutants {shlex.join(one.name for one in missed)}"] if missed else []


def _place(one: Outcome) -> tuple[str, int]:
    return one.file, one.line


def _key(one: Outcome) -> tuple[str, str, str]:
    return one.file, one.before, one.after


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
