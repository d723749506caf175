"""Lists, packages, environments and what is hidden: how each is counted."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from soak._figure import Figure
from soak.supply import build, lists, without
from soak.supply.install import beside, from_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from soak._figure import Status
    from soak.supply.install import Done

SHOWN = 5  # details of a failure
LICENCE = "Apache-2.0"
# Tests that need nothing but narrows, what it depends on, and pytest; and more, that read what develops it.
BARE = ("tests/values", "tests/stats", "tests/cost", "tests/files", "tests/oracle", "tests/ops")
MORE = (*BARE, "tests/decompose", "tests/planning", "tests/reporting", "tests/nn", "tests/kernels/test_registry.py")


def figures(seed: int, scale: float, jobs: int) -> Iterator[Figure]:
    """Yield the figures of this part; nothing is drawn, so the seed has no say."""
    del seed
    is_long = scale >= 1
    yield from listed()
    status, told = lists.audit()
    yield figure("known vulnerabilities of what is installed", "none, or explained", told, status)
    with tempfile.TemporaryDirectory(prefix="narrows-soak-") as folder:
        yield from packed(Path(folder), jobs, is_long=is_long)
    yield from optional(without.OPTIONAL if is_long else (), jobs, is_heavy=is_long)


def listed() -> Iterator[Figure]:
    """Yield whether the lists agree: licences, imports, hashes."""
    licences = lists.tool("licences")
    rows = licences.rows()
    wrong = [f"{row.name}: {row.licence}" for row in rows if not licences.is_allowed(row.licence)]
    wrong += [
        f"{licences.PAGE.name} lacks {row}" for row in licences.differences(licences.PAGE.read_text("utf-8"), rows)
    ]
    yield counted("licences", "each known, listed, and fit to stand beside Apache-2.0", wrong, len(rows))
    imports = lists.imports()
    wrong = lists.faults_of_imports(imports, lists.declared())
    yield counted("imports of other packages", "each declared, and nothing declared in vain", wrong, len(imports))
    text, run = lists.LOCK.read_text(encoding="utf-8"), (lists.ROOT / ".ci" / "run").read_text(encoding="utf-8")
    wrong = lists.faults_of_lock(text, {row.name for row in rows} - {"nvidia-ml-py"})
    wrong += [] if lists.is_installed_by(run) else [".ci/run does not install by it"]
    yield counted(
        "packages that CI installs beside PyTorch", "each pinned, with a hash", wrong, len(lists.locked(text))
    )


def packed(work: Path, jobs: int, *, is_long: bool) -> Iterator[Figure]:
    """Yield what is built, twice, what it holds, and whether it works where it is installed."""
    names = build.project_files()
    copies = build.copied_twice(work, names)
    made = {}
    for kind, faults_of in (("wheel", build.faults_of_wheel), ("sdist", build.faults_of_sdist)):
        one, other = (build.built(copy, work / f"{kind}-{number}", kind) for number, copy in enumerate(copies))
        made[kind] = one
        told = [] if build.sha256(one) == build.sha256(other) else [f"{build.sha256(one)} and {build.sha256(other)}"]
        yield counted(f"{kind} built twice", "the same to the byte", told, 2)
        inside = build.names_in(one)
        yield counted(
            f"files in the {kind}", "what belongs there, and nothing else", faults_of(inside, names), len(inside)
        )
    wrong = build.faults_of_metadata(build.metadata(made["wheel"]), licence=LICENCE)
    yield counted("metadata of the wheel", "licence, Python, and no registry's host", wrong, 1)
    yield from installed(made["wheel"], made["sdist"], work, jobs, is_long=is_long)


def installed(wheel: Path, sdist: Path, work: Path, jobs: int, *, is_long: bool) -> Iterator[Figure]:
    """Yield whether tests of the sdist pass with the installed wheel."""
    ways: list[tuple[str, Callable[..., Done], Sequence[str]]] = [
        (
            "tests of the sdist with the wheel installed beside the packages that are here",
            beside,
            MORE if is_long else BARE[:1],
        )
    ]
    if is_long:
        ways.append(
            ("tests of the sdist in an environment that pip filled from the wheel's metadata", from_registry, BARE)
        )
    for name, way, tests in ways:
        done = way(wheel, sdist, work, tests, jobs)
        yield figure(name, "all pass", done.told, done.status, done.failures)


def optional(names: Sequence[str], jobs: int, *, is_heavy: bool) -> Iterator[Figure]:
    """Yield whether narrows works without what is optional: each package hidden alone, and all together."""
    features = (*without.LIGHT, *without.HEAVY) if is_heavy else without.SHORT
    hidden = without.sets(names) if names else [without.OPTIONAL]
    with tempfile.TemporaryDirectory(prefix="narrows-soak-") as folder:
        without.prepare(Path(folder), is_heavy=is_heavy)
        wrong = [fault for each in hidden for fault in without.faults(Path(folder), each, features, jobs)]
    name = f"optional packages hidden ({', '.join(without.OPTIONAL)}): {len(features)} features"
    asked = "what needs none works; what does says what to install"
    yield counted(name, asked, wrong, len(hidden) * len(features))


def counted(name: str, asked: str, wrong: Sequence[str], count: int) -> Figure:
    """Return the figure of a check: how much of what was tried is wrong."""
    return Figure(
        part="supply",
        name=name,
        asked=asked,
        reached=f"{len(wrong)} wrong",
        status="failed" if wrong else "ok",
        count=count,
        details=tuple(wrong[:SHOWN]),
    )


def figure(name: str, asked: str, told: str, status: Status, details: Sequence[str] = ()) -> Figure:
    """Return a figure whose words another program said."""
    shown = tuple(details[:SHOWN])
    return Figure(part="supply", name=name, asked=asked, reached=told, status=status, count=1, details=shown)
