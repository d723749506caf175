"""Every operation with its cases and trial, the shares that processes run, and the figures."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, Verbosity, given, settings

from soak._figure import Figure
from soak.right import attend, attention, bilinear, group, linear, pivot
from soak.right.trial import Judged, Undecided, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from soak.right.trial import Trial

EXAMPLES = 20_000  # of each operation in the long run
A_SHARE = 2_500  # examples that one process runs before it takes the next share


@dataclass(frozen=True)
class Operation:
    """A public operation: how its calls are drawn, and how one of them is tried."""

    cases: hypothesis.strategies.SearchStrategy[Any]
    trial: Callable[[Any], Trial]


OPERATIONS = {
    "linear": Operation(linear.CASES, linear.LinearTrial),
    "linear_group": Operation(group.GROUP_CASES, group.GroupTrial),
    "gated_linear": Operation(group.PAIR_CASES, group.GatedTrial),
    "stack": Operation(group.GROUP_CASES, group.StackTrial),
    "pivot_linear": Operation(pivot.CASES, pivot.PivotTrial),
    "bilinear": Operation(bilinear.CASES, bilinear.BilinearTrial),
    "attend": Operation(attend.CASES, attend.AttendTrial),
    "attention": Operation(attention.CASES, attention.AttentionTrial),
}


@dataclass
class Share:
    """What one share of an operation's examples found.

    Attributes:
        counts: "judged", "undecided", "gradients".
        nearest: largest |error| / bound of a result and of a gradient.
        failure: the smallest example that failed and how to run it again; empty: none did.
    """

    counts: Counter[str] = field(default_factory=Counter)
    nearest: tuple[float, float] = (0.0, 0.0)
    failure: str = ""

    def count(self, judged: Judged) -> None:
        """Add one example."""
        self.counts.update(judged=1, gradients=judged.num_gradients)
        self.nearest = max(self.nearest[0], judged.result), max(self.nearest[1], judged.gradient)


def search(name: str, seed: int, examples: int) -> Share:
    """Return what so many examples of an operation found; the first failure is made as small as it can be."""
    torch.set_num_threads(1)
    operation, share = OPERATIONS[name], Share()

    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(operation.cases)
    def run(case: Any) -> None:
        try:
            share.count(judge(operation.trial(case)))
        except Undecided:
            share.counts.update(undecided=1)
            hypothesis.reject()
        except Exception as error:
            error.add_note(repr(case))
            raise

    try:
        run()
    except Exception as error:  # noqa: BLE001 (whatever an operation raises on operands that fit is its failure)
        share.failure = told(name, seed, examples, error)
    return share


def told(name: str, seed: int, examples: int, error: Exception) -> str:
    """Return one line: what was violated by which call, and the command that finds it again."""
    notes = [note for note in getattr(error, "__notes__", ()) if "Case(" in note]
    again = f"python -m soak.right {name} --seed {seed} --examples {examples}"
    return f"{type(error).__name__}: {error} | {notes[0] if notes else ''} | {again}"


def figures(seed: int, scale: float, jobs: int) -> Iterator[Figure]:
    """Yield a figure for each operation; more jobs than one run in processes of their own."""
    examples = max(1, round(EXAMPLES * scale))
    sizes = [min(A_SHARE, examples - done) for done in range(0, examples, A_SHARE)]
    for name, shares in all_shares(seed, sizes, jobs):
        yield figure(name, shares, examples)


def all_shares(seed: int, sizes: list[int], jobs: int) -> Iterator[tuple[str, list[Share]]]:
    """Yield every operation with what its shares found."""
    seeds = [seed * len(sizes) + i for i in range(len(sizes))]
    if jobs == 1:
        for name in OPERATIONS:
            yield name, list(map(partial(search, name), seeds, sizes))
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {
            name: [pool.submit(search, name, *one) for one in zip(seeds, sizes, strict=True)] for name in OPERATIONS
        }
        for name, futures in running.items():
            yield name, [future.result() for future in futures]


def figure(name: str, shares: Sequence[Share], examples: int) -> Figure:
    """Return what was reached, of which every example must have been judged and none failed."""
    counts: Counter[str] = sum((share.counts for share in shares), Counter())
    failures = tuple(share.failure for share in shares if share.failure)
    result, gradient = (max(share.nearest[i] for share in shares) for i in (0, 1))
    reached = f"{counts['judged']:,} and {counts['gradients']:,} gradients within, {len(failures)} failures"
    nearest = f"at most {result:.2f} and {gradient:.2f} of a bound; {counts['undecided']:,} more without a bound"
    is_enough = counts["judged"] >= examples and not failures
    return Figure(
        part="right",
        name=f"{name} against float64, with its gradients",
        asked=f"{examples:,} examples within the elementwise bound",
        reached=f"{reached} ({nearest})",
        status="ok" if is_enough else "failed",
        count=counts["judged"],
        details=failures[:3],
    )
