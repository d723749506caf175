"""The parent's side of an experiment: what to measure next, when to stop, what to keep.

A round is every dense association once and every (rank, variant) once at one length, in an order
drawn anew for each round. Rounds repeat until the interval of every ratio is narrower than 5 %, or
the time is spent. The parent owns the store and never touches the device.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from narrows._stats import FEWEST_ROUNDS
from narrows.bench._client import RequestFailed, Worker, WorkerDied
from narrows.bench._keys import Keys
from narrows.bench._point import Check, Point, cost_of
from narrows.bench._rounds import best_ceilings, is_narrow, num_paired, shuffled
from narrows.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from narrows._values import Experiment
    from narrows.bench._store import Store

FIRST_ROUND_SECONDS = 60.0  # even a tiny budget gets one round of every length, if that takes no longer
VISIT_SECONDS = 5.0  # a length is left after this long, so that slow minutes fall on all of them alike
SLOWEST_FLOPS = 1e9  # a row slower than this a second is given up, but not before 2 minutes
PREPARE_SECONDS = 3600.0
MAX_RESTARTS = 3
RUN_FACTS = ("spent", "ceilings", "conditions")


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done now.

    Attributes:
        text: for people.
        spent: seconds used of the budget, earlier runs of this experiment included.
        budget: seconds allowed in all.
        is_notice: worth a line of its own, not only a look at the bar.
    """

    text: str
    spent: float
    budget: float
    is_notice: bool = False


class Sweep:
    """Measures what an experiment still lacks."""

    def __init__(
        self, experiment: Experiment, store: Store, *, minutes: float, progress: Callable[[Progress], None]
    ) -> None:
        self.experiment = experiment
        self._store = store
        self._progress = progress
        self._budget = minutes * 60
        self._visit = min(VISIT_SECONDS, self._budget / (10 * len(experiment.tokens)))
        self._folder = store.path.parent / f"{store.path.name}.factors"
        self._text = json.dumps(asdict(experiment))
        self._worker = Worker()
        self._memory_worker: Worker | None = None
        self.opening: dict[str, Any] = {}
        self._started: float | None = None
        self._is_first = False
        self._spent_before = 0.0
        self._checks: dict[Point, Check] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()
        if self._memory_worker is not None:
            self._memory_worker.close()

    @property
    def spent(self) -> float:
        """Seconds of checking and sampling, earlier runs included; preparation is not counted."""
        now = 0.0 if self._started is None else time.monotonic() - self._started
        return self._spent_before + now

    def is_over(self) -> bool:
        """Say whether the time is spent; the first round of every length has a minute in any case."""
        return self.spent >= (max(self._budget, FIRST_ROUND_SECONDS) if self._is_first else self._budget)

    def points(self, tokens: int) -> list[Point]:
        """Return every point of one length: dense first, then ranks ascending."""
        asked = self.experiment
        return [
            Point(tokens, rank, variant, mode, cache)
            for mode in asked.modes
            for cache in asked.caches
            for rank in (None, *asked.ranks)
            for variant in (self.opening["dense"] if rank is None else self.opening["thin"])
        ]

    def open(self) -> Keys:
        """Ask the child what it is and what the experiment's content is."""
        self._say("starting")
        self._tell_damaged()
        self.opening = self._ask_open()
        fingerprint = self.opening["machine"]["fingerprint"]
        self.keys = Keys(self.experiment, fingerprint, tuple(self.opening["weights"]), self.opening["input"])
        self._spent_before = self._store.fact(self.keys.run("spent")) or 0.0
        return self.keys

    def _tell_damaged(self) -> None:
        """Say which rows of the store were left out; they are measured again."""
        damaged = self._store.damaged
        if damaged:
            count = f"{len(damaged)} rows of the store {self._store.path} are damaged and are measured again"
            self._say(f"{count}: {damaged[0]}", is_notice=True)

    def forget(self) -> None:
        """Delete what the store holds of this experiment (rows that other experiments share included)."""
        points = [point for tokens in self.experiment.tokens for point in self.points(tokens)]
        weights = [self.keys.weight(index) for index in range(len(self.keys.weights))]
        self._store.forget([*map(self.keys.point, points), *weights, *map(self.keys.run, RUN_FACTS)])
        self._spent_before = 0.0

    def run(self) -> None:
        """Measure until every interval is narrow enough or the time is spent."""
        if self._is_finished():
            self._say("nothing left to measure: give more --minutes to go on, --fresh to start over", is_notice=True)
            self._clear()
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        self._started = time.monotonic()
        self._first_rounds()
        self._repeat()
        self._note_spent()
        self._clear()

    def _first_rounds(self) -> None:
        self._is_first = True
        for tokens in self.experiment.tokens:
            self._examine(tokens)
            if not any(self._samples(point) for point in self._timed(tokens)):
                self._round(tokens)
            self._note_spent()
        self._is_first = False

    def check_of(self, point: Point) -> Check | None:
        """Return what is known of a point, from this run or an earlier one."""
        if point not in self._checks:
            fact = self._store.fact(self.keys.point(point))
            if fact is None:
                return None
            self._checks[point] = Check(**fact)
        return self._checks[point]

    def _is_finished(self) -> bool:
        """Say whether an earlier run spent the whole budget, or left nothing to do."""
        if self.is_over():
            return True
        prepared = all(self._store.fact(self.keys.weight(i)) is not None for i in range(len(self.keys.weights)))
        return prepared and all(self._is_final(t) and self._is_narrow(t) for t in self.experiment.tokens)

    def _say(self, text: str, *, is_notice: bool = False) -> None:
        self._progress(Progress(text, self.spent, self._budget, is_notice))

    def _note_spent(self) -> None:
        """Keep how long this experiment has taken, for a run that continues it."""
        self._store.put_fact(self.keys.run("spent"), "spent", self.spent)

    def _clear(self) -> None:
        """Delete the factors that were kept for a child that takes over, also those that a killed run left."""
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def _prepare(self) -> None:
        """Measure ceilings; factorise the weights that no earlier run has factorised."""
        self._say("measuring this machine's ceilings")
        known = self._store.fact(self.keys.run("ceilings"))
        found = self._require("ceilings", "this machine's ceilings could not be measured", "Run the same command again")
        self._store.put_fact(self.keys.run("ceilings"), "ceilings", best_ceilings(known, found))
        share = self._require("share_of_float32", "the dtype could not be probed", "Run the same command again")
        if share is not None:
            slow = f"{self.experiment.dtype} is slow here: {share:.0%} of float32's FLOP/s"
            self._say(f"{slow} (narrows doctor compares dtypes)", is_notice=True)
        conditions = self._require("conditions", "the conditions could not be read", "Run the same command again")
        self._store.put_fact(self.keys.run("conditions"), "conditions", conditions)
        for index, source in enumerate(self.experiment.weights):
            if self._store.fact(self.keys.weight(index)) is not None:
                continue
            self._say(f"factorising {source.name}, and its error at every length and rank")
            what = f"weight {source.name} could not be factorised here"
            advice = "Free memory, or give a smaller weight or largest --rank"
            fact = self._require("prepare", what, advice, index=index)
            self._store.put_fact(self.keys.weight(index), "weight", fact)
        # A run that continues a finished one finds no factors any more: make them before the clock starts.
        self._require("load_factors", "the timed weight could not be factorised here", "Free memory")

    def _examine(self, tokens: int) -> None:
        """Check every point of a length that has no final check yet."""
        for point in self.points(tokens):
            known = self.check_of(point)
            if self.is_over() or (known is not None and known.is_final):
                continue
            self._say(f"checking {point}")
            self._keep(point, self._check(point))

    def _check(self, point: Point) -> Check:
        try:
            found = Check(**self._worker.ask("check", timeout=self._patience(point), point=point.to_json()))
            peak = self._peak(point) if found.can_be_timed and found.peak_memory_bytes is None else None
        except RequestFailed as event:
            return Check(event.status, str(event))
        except WorkerDied as event:
            self._restart()
            return Check(event.status, event.reason)
        return found if peak is None else Check(**{**asdict(found), "peak_memory_bytes": peak})

    def _peak(self, point: Point) -> int | None:
        """Ask a process that has run nothing for the peak of one call (hot, eager rows on a CPU)."""
        if not self.experiment.device.startswith("cpu") or point.mode != "eager" or point.cache != "hot":
            return None
        if self._memory_worker is None:
            self._memory_worker = Worker()
        try:
            answer = self._memory_worker.ask(
                "peak", timeout=self._patience(point), experiment=self._text, point=point.to_json()
            )
        except (WorkerDied, RequestFailed):
            self._memory_worker.close()
            self._memory_worker = None
            return None
        return answer["bytes"]  # type: ignore[no-any-return]

    def _keep(self, point: Point, check: Check) -> None:
        self._checks[point] = check
        self._store.put_fact(self.keys.point(point), "check", asdict(check))

    def _patience(self, point: Point) -> float:
        """Return the seconds after which a row is given up."""
        return 120 + cost_of(point, self.experiment.problem(point.tokens)).flops / SLOWEST_FLOPS

    def _require(self, do: str, what: str, advice: str, **request: Any) -> Any:
        """Return the answer to a request without which nothing can be measured."""
        try:
            return self._worker.ask(do, timeout=PREPARE_SECONDS, **request)
        except (WorkerDied, RequestFailed) as event:
            raise ResourceError(f"{what} ({event}). {advice}: everything measured so far is kept.") from None

    def _ask_open(self) -> dict[str, Any]:
        return dict(
            self._require(
                "open",
                "the measuring process could not start",
                "Free memory, or ask for fewer --tokens or a smaller --shape",
                experiment=self._text,
                folder=str(self._folder),
            )
        )

    def _restart(self) -> None:
        """Replace a child that died."""
        for attempt in range(MAX_RESTARTS):
            self._worker.close()
            self._worker = Worker()
            try:
                self._ask_open()
            except ResourceError:
                if attempt == MAX_RESTARTS - 1:
                    raise
            else:
                return

    def _timed(self, tokens: int) -> list[Point]:
        """Return the points of a length that can be timed."""
        return [p for p in self.points(tokens) if (check := self.check_of(p)) is not None and check.can_be_timed]

    def _samples(self, point: Point) -> dict[int, float]:
        return dict(self._store.samples(self.keys.point(point)))

    def _round(self, tokens: int) -> None:
        """Take one sample of every dense point and of every thin point that has the fewest paired ones."""
        points = self._timed(tokens)
        samples = {point: self._samples(point) for point in points}
        counts = {point: num_paired(point, samples) for point in points if point.rank is not None}
        fewest = min(counts.values(), default=0)
        number = 1 + max((max(s, default=-1) for s in samples.values()), default=-1)
        wanted = [point for point in points if point.rank is None or counts[point] == fewest]
        for point in shuffled(wanted, number):
            if self.is_over():
                return
            self._say(f"round {number + 1}: {point}")
            self._sample(point, number)

    def _sample(self, point: Point, number: int) -> None:
        try:
            answer = self._worker.ask("sample", timeout=self._patience(point), point=point.to_json())
        except RequestFailed as event:
            self._keep(point, self._spoiled(point, event.status, str(event)))
        except WorkerDied as event:
            self._restart()
            self._keep(point, self._spoiled(point, event.status, event.reason))
        else:
            self._store.add_sample(self.keys.point(point), number, round(answer["ns"], 1), answer["calls"])

    def _spoiled(self, point: Point, status: str, reason: str) -> Check:
        """Return what is known of a point whose sample failed: still what it costs, and why it has no time."""
        return Check(**{**asdict(self._checks[point]), "status": status, "reason": reason})

    def _repeat(self) -> None:
        """Visit the lengths in turn: first those with too few rounds for an interval, then the one with least time."""
        taken = dict.fromkeys(self.experiment.tokens, 0.0)
        while not self.is_over():
            open_lengths = [tokens for tokens in self.experiment.tokens if not self._is_narrow(tokens)]
            if not open_lengths:
                return
            tokens = min(open_lengths, key=lambda length: (self._num_rounds(length), taken[length]))
            start = time.monotonic()
            while not self.is_over() and time.monotonic() - start < self._visit and not self._is_narrow(tokens):
                self._round(tokens)
            taken[tokens] += time.monotonic() - start
            self._note_spent()

    def _num_rounds(self, tokens: int) -> int:
        """Return the fewest paired rounds of a length's thin points, at most the 8 that an interval needs."""
        samples = {point: self._samples(point) for point in self._timed(tokens)}
        counts = [num_paired(point, samples) for point in samples if point.rank is not None]
        return min([*counts, FEWEST_ROUNDS])

    def _is_final(self, tokens: int) -> bool:
        """Say whether no point of a length is worth another try."""
        return all((check := self.check_of(point)) is not None and check.is_final for point in self.points(tokens))

    def _is_narrow(self, tokens: int) -> bool:
        """Say whether every ratio of a length, against every dense association, is known to 5 %."""
        points = self.points(tokens)
        if any(self.check_of(point) is None for point in points):
            return False
        return is_narrow({point: self._samples(point) for point in self._timed(tokens)})
