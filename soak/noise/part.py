"""Simulated and measured twins, and repeats under load: how each is counted."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from soak._figure import Figure
from soak.noise import repeats
from soak.noise.load import Load, cores, load
from soak.noise.models import NOISES, count_faster, interval_rule
from soak.noise.rate import LIMIT, Rate, rate_of
from soak.noise.twins import ratios

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from narrows._values import Report
    from soak.noise.models import Rule

COMPARISONS = 1000  # measured, quiet and again under load
DRAWS = 20_000  # simulated, of each kind of noise
REPEATS, SECONDS = 20, 20.0
ASKED = f"faster at most {1000 * LIMIT:g} times in 1,000"
SHOWN = 3  # details of a failure


def figures(seed: int, scale: float, jobs: int) -> Iterator[Figure]:
    """Yield the figures of this part."""
    yield simulated(seed, max(50, round(DRAWS * scale)), jobs)
    comparisons = max(8, round(COMPARISONS * scale))
    yield measured(seed, comparisons)
    if len(cores()) < 2:
        for name in ("measured under load", "choose under load", "compare under load"):
            yield shown_not(name, "this machine has one core: a load would share it with what is measured")
        return
    yield measured(seed + 1, comparisons, is_loaded=True)
    yield from repeated(seed, max(2, round(REPEATS * scale)), max(2.0, SECONDS * min(1.0, 20 * scale)))


def simulated(seed: int, draws: int, jobs: int, *, rule: Rule = interval_rule) -> Figure:
    """Return how often "faster" is said under the kind of modelled noise where it is said most often."""
    work = partial(count_faster, seed=seed, tries=draws, rule=rule)
    with ProcessPoolExecutor(jobs) as pool:
        found = dict(zip(NOISES, pool.map(work, NOISES), strict=True))
    rates = {name: Rate(count=count, tried=tried, kinds=len(NOISES)) for name, (count, tried) in found.items()}
    worst = max(rates, key=lambda name: rates[name].count)
    return Figure(
        part="noise",
        name=f"a variant against itself, simulated, {len(NOISES)} kinds of noise",
        asked=ASKED,
        reached=f"worst of them ({worst}) {rates[worst]}",
        status=rates[worst].status,
        count=sum(rate.tried for rate in rates.values()),
    )


def measured(seed: int, comparisons: int, *, is_loaded: bool = False) -> Figure:
    """Return how often "faster" is said of a call really timed against itself."""
    with load(seed) if is_loaded else nullcontext(Load()) as taken:
        verdicts = [ratio.verdict for ratio in ratios(seed, comparisons)]
    name = "a variant against itself, measured" + (", second core half busy" if is_loaded else "")
    if is_loaded and not taken.is_real:
        return shown_not(name, f"the load took {taken.share:.0%} of its core only")
    rate, slower = rate_of(verdicts), rate_of(verdicts, "slower")
    told = f"{rate}; slower {slower.count} times; {verdicts.count('unknown')} without a verdict"
    return Figure(
        part="noise",
        name=name,
        asked=ASKED,
        reached=f"{told}; load {taken.share:.0%} of its core" if is_loaded else told,
        status=rate.status,
        count=rate.tried,
        details=(f"python -m soak noise --seed {seed}",) if rate.status == "failed" else (),
    )


def repeated(seed: int, number: int, seconds: float) -> Iterator[Figure]:
    """Yield what `choose` and `compare` say of repeats under load."""
    with load(seed) as taken:
        found = list(repeats.reports(number, seconds))
    if not taken.is_real:
        for name in ("choose under load", "compare under load"):
            yield shown_not(name, f"the load took {taken.share:.0%} of its core only")
        return
    yield chosen(found)
    yield compared(found)


def chosen(found: Sequence[Report]) -> Figure:
    """Return whether the plans of all repeats agree."""
    agreement = repeats.agreement(found)
    return Figure(
        part="noise",
        name=f"choose, {len(found)} repeats with the second core half busy",
        asked="the same each time, or cannot tell",
        reached=(
            f"{len(agreement.contradictions)} contradictions; {agreement.decided} answers rule all others out, "
            f"{agreement.asked - agreement.decided} cannot tell; {agreement.split} of {agreement.questions} questions "
            "have more than one answer"
        ),
        status="failed" if agreement.contradictions else "ok" if agreement.decided else "not shown",
        count=agreement.asked,
        details=agreement.contradictions[:SHOWN],
    )


def compared(found: Sequence[Report]) -> Figure:
    """Return whether `compare` finds a change between repeats, of which there is none."""
    verdicts = repeats.changes(found)
    wrong, known = verdicts["faster"] + verdicts["slower"], verdicts.total() - verdicts["unknown"]
    return Figure(
        part="noise",
        name=f"compare, {len(found)} repeats with the second core half busy",
        asked="no change, or cannot tell",
        reached=f"{wrong} rows said to have changed; {verdicts['unknown']} cannot tell",
        status="failed" if wrong else "ok" if known else "not shown",
        count=verdicts.total(),
    )


def shown_not(name: str, lack: str) -> Figure:
    """Return the figure of what this machine cannot show."""
    return Figure(part="noise", name=name, asked=ASKED, reached=lack, status="not shown")
