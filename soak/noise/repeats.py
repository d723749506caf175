"""The same experiment again and again while a core is half busy: what `choose` and `compare` say each time."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from narrows._stats import against
from narrows._values import Budget, Experiment, WeightSource
from narrows.bench import run_experiment
from narrows.planning import choose, compare, points, scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from narrows._stats import Verdict
    from narrows._values import Report, Row
    from narrows.planning import Candidate, Point

# From ranks that win by far, past one that takes about as long as dense (256: half of D = E), to one that loses.
EXPERIMENT = Experiment(
    kind="linear",
    in_features=512,
    out_features=512,
    tokens=(64, 256),
    ranks=(16, 64, 128, 256, 512),
    weights=(WeightSource("power-law", "power", exponent=0.7),),
)
Answer = int | None  # a rank; None: dense


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one repeat's plan says to one question.

    Attributes:
        answer: the rank that is taken; None: dense.
        open_to: the answers that this repeat cannot tell from it in time.
    """

    answer: Answer
    open_to: frozenset[Answer]

    def contradicts(self, other: Said) -> bool:
        """Say whether each of two repeats took what the other ruled out beyond doubt."""
        is_open = other.answer in self.open_to or self.answer in other.open_to
        return self.answer != other.answer and not is_open


def reports(repeats: int, seconds: float) -> Iterator[Report]:
    """Yield a report of each repeat; no repeat knows of another."""
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="narrows-soak-") as folder:
            yield run_experiment(EXPERIMENT, store=Path(folder) / "store.sqlite", minutes=seconds / 60)


def questions(report: Report) -> list[tuple[int, int]]:
    """Return (tokens, least rank that the error budget admits), for every length and rank."""
    return [(tokens, rank) for tokens in report.experiment.tokens for rank in report.experiment.ranks]


def said(report: Report, tokens: int, least_rank: int) -> Said:
    """Return what `choose` says where the error budget admits ranks from `least_rank` on."""
    error = report.error(tokens, least_rank)
    assert error is not None
    (choice,) = choose(report, Budget(error=error.upper95), tokens=tokens).choices
    point = next(one for one in points(report, scope(report)) if one.tokens == tokens)
    admitted = best_of_ranks(one for one in point.candidates if one.rank >= least_rank)
    return Said(answer=choice.rank, open_to=frozenset(_open(point, admitted, choice.rank)))


def best_of_ranks(candidates: Iterable[Candidate]) -> dict[int, Candidate]:
    """Return the fastest implementation of each rank."""
    ordered = sorted(candidates, key=lambda one: one.measured.speedup.value)
    return {one.rank: one for one in ordered}


def _open(point: Point, admitted: dict[int, Candidate], answer: Answer) -> Iterator[Answer]:
    """Yield every other answer that the samples do not tell from the one given."""
    taken = point.dense.row if answer is None else admitted[answer].measured.row
    rows: dict[Answer, Row] = {rank: one.measured.row for rank, one in admitted.items()}
    for other, row in {**rows, None: point.dense.row}.items():
        ratio = against(taken, row)
        if other != answer and (ratio is None or ratio.verdict in {"tie", "unknown"}):
            yield other


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What all repeats together say.

    Attributes:
        questions: how many were put to each repeat.
        asked: answers in all.
        decided: answers that rule every other one out.
        split: questions whose repeats gave different answers.
        contradictions: pairs of repeats of which each ruled out what the other took, as (question, i, j).
    """

    questions: int
    asked: int
    decided: int
    split: int
    contradictions: tuple[str, ...]


def agreement(found: Sequence[Report]) -> Agreement:
    """Return how far the plans of all repeats agree."""
    every, split, against_each_other = [], 0, []
    for tokens, rank in questions(found[0]):
        answers = [said(report, tokens, rank) for report in found]
        every += answers
        split += len({one.answer for one in answers}) > 1
        for (i, one), (j, other) in combinations(enumerate(answers), 2):
            if one.contradicts(other):
                told = f"repeat {i} {named(one.answer)}, repeat {j} {named(other.answer)}"
                against_each_other.append(f"T={tokens}, ranks from {rank}: {told}")
    return Agreement(
        questions=len(questions(found[0])),
        asked=len(every),
        decided=sum(not one.open_to for one in every),
        split=split,
        contradictions=tuple(against_each_other),
    )


def named(answer: Answer) -> str:
    """Return an answer in words."""
    return "dense" if answer is None else f"rank {answer}"


def changes(found: Sequence[Report]) -> Counter[Verdict]:
    """Return the verdicts of `compare` on each repeat and the one before it; nothing changed between them."""
    return Counter(row.ratio.verdict for a, b in pairwise(found) for row in compare(a, b).rows)
