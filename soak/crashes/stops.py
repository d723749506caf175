"""Real starts that are stopped: Ctrl-C must end within a second and say how to go on; SIGTERM must leave no halves."""

from __future__ import annotations

import random
import signal
import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from soak._figure import Figure
from soak.crashes.cycle import home_of, left_well
from soak.crashes.process import started
from soak.crashes.starts import Chain, real, words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from soak.crashes.cycle import Whole
    from soak.crashes.process import Stopped

VERBS = ("measure", "compress")
WITHIN_SECONDS = 1.0
STOPPED = 130  # exit code
HOW = "run the same command to continue"
DONE = "wrote "
STARTS = 10  # in one home, each going on from the one before


def stop_figures(
    base: Path, wholes: dict[str, Whole], wanted: dict[signal.Signals, int], seed: int, jobs: int
) -> Iterator[Figure]:
    """Yield what became of real starts that got a signal, so many for each."""

    def one(asked: tuple[signal.Signals, str]) -> Figure:
        by, name = asked
        chain = stopped(name, base, wholes, by, (wanted[by], f"{seed} {by.name} {name}"))
        return _figure(name, by, wanted[by], seed, chain)

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(one, [(by, name) for by in wanted for name in VERBS])


def stopped(name: str, base: Path, wholes: dict[str, Whole], by: signal.Signals, draws: tuple[int, str]) -> Chain:
    """Return what became of starts of a verb that got a signal at any moment; `draws` is how many, and the seed."""
    wanted, seed = draws
    case, whole = real(name, wholes)
    draw, chain = random.Random(seed), Chain()  # noqa: S311 (draws, not secrets)
    with home_of(case, base) as home:
        seconds = started(words(name, base, home), home).seconds
    while len(chain.ended) < wanted:
        with home_of(case, base) as home:
            for _ in range(min(STARTS, wanted - len(chain.ended))):
                before, after = case.kept(home), draw.uniform(0.0, seconds)
                end = started(words(name, base, home), home, after=after, by=by, kept=case.kept)
                if end.took is None:
                    break
                chain.ended.append(end)
                found = [*left_well(case, home, whole, before | end.kept), *end.orphans]
                found += ctrl_c_faults(end, before) if by == signal.SIGINT else []
                chain.faults += [f"stopped after {after:.2f} s: {fault}" for fault in found]
    return chain


def ctrl_c_faults(end: Stopped, before: frozenset[str]) -> list[str]:
    """Return what is wrong with how a run ended by Ctrl-C.

    Before it kept anything, and after it wrote its result, it need not say how to go on, and Python itself may be
    starting or ending, which SIGINT kills. A run that ends with 0 was done before it could hear of the signal.
    """
    assert end.took is not None
    needed = end.took - end.queued
    told = f"took {end.took:.2f} s to end, {end.queued:.2f} s of them waiting for a processor"
    faults = [] if needed <= WITHIN_SECONDS else [told]
    is_at_the_edge = end.kept <= before or DONE in end.said
    is_done = DONE in end.said and end.code == 0
    if end.code != STOPPED and not is_done and not (is_at_the_edge and end.code == -signal.SIGINT):
        faults.append(f"ended with {end.code}: {end.said[-300:]}")
    if not is_at_the_edge and HOW not in end.said:
        faults.append(f"does not say how to go on: {end.said[-300:]}")
    if not is_at_the_edge and "Traceback" in end.said:
        faults.append(f"shows a traceback: {end.said[-300:]}")
    return faults


def _figure(name: str, by: signal.Signals, wanted: int, seed: int, chain: Chain) -> Figure:
    took = sorted(end.took - end.queued for end in chain.ended if end.took is not None)
    queued = max(end.queued for end in chain.ended)
    edge = sum(end.code == -by for end in chain.ended)
    codes = f", {edge} of them as Python itself started or ended" if by == signal.SIGINT else ""
    reached = (
        f"{len(chain.faults)} went wrong; {len(took)} stopped{codes}, "
        f"after {statistics.median(took):.2f} s in the middle and {took[-1]:.2f} s at most "
        f"(waits for a processor that other programs had are not counted: {queued:.2f} s at most)"
    )
    asked = "ends within 1 s, what is done is kept, and it says how to go on" if by == signal.SIGINT else "no halves"
    return Figure(
        part="crashes",
        name=f"{'Ctrl-C' if by == signal.SIGINT else by.name} in real starts of {name}",
        asked=f"{wanted} times: {asked}",
        reached=reached,
        status="failed" if chain.faults else "ok",
        count=len(took),
        details=tuple(f"{fault}   [python -m soak crashes --seed {seed}]" for fault in chain.faults[:5]),
    )
