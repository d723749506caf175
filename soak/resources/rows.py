"""A sweep whose rows run out of memory, are killed, or break: the others are measured, and each says why it is not."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from soak.concurrency.children import stand_in
from soak.crashes.child import Answer, run
from soak.crashes.measure import CEILINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from narrows._values import Experiment, Report, Row

FEWEST = 8  # rounds of a row that nothing befell
SHARE = 0.3  # of the rows that something befalls
MOST = 1 << 62  # bytes that no machine has
WHERE = ("check", "sample")


def _killed() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def _broken_off() -> NoReturn:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError("unreachable")


def _no_memory() -> NoReturn:
    raise MemoryError


def _allocator() -> NoReturn:
    """Ask torch for more than there is: it raises what it raises."""
    import torch

    torch.empty(MOST, dtype=torch.uint8)
    raise AssertionError("this machine has no limit")


def _unsupported() -> NoReturn:
    raise RuntimeError('"addmm_impl_cpu_" not implemented for this dtype')


# What befalls a row, and how its row must say so: status, and a part of the reason.
FATES: dict[str, tuple[Callable[[], NoReturn], str, str]] = {
    "killed": (_killed, "killed (signal 9)", "ended by signal 9"),
    "broken off": (_broken_off, "killed (signal 11)", "ended by signal 11"),
    "MemoryError": (_no_memory, "does not fit", "MemoryError"),
    "torch's allocator": (_allocator, "does not fit", "you tried to allocate"),
    "another error": (_unsupported, "failed", "not implemented for this dtype"),
}


def swept(seed: str) -> list[str]:
    """Return what is wrong with a sweep in which fates befall a share of the rows."""
    with tempfile.TemporaryDirectory(prefix="soak-sweep-") as folder:
        ended = run(lambda _: Answer(0, json.dumps(_sweep(Path(folder), seed))))
    if ended.answer is None or ended.answer.code:
        return [f"the sweep did not end: {ended.answer}"]
    found: list[str] = json.loads(ended.answer.said)
    return found


def _sweep(folder: Path, seed: str) -> list[str]:
    from narrows.bench import _client, _sweep, run_experiment

    fates = _drawn(seed)
    stand_in(_sweep, Worker=forked_worker(_client.Worker, fates))
    report = run_experiment(_experiment(), store=folder / "store.sqlite", minutes=60.0)
    return judged(report, fates)


def _experiment() -> Experiment:
    from narrows import Experiment, WeightSource

    return Experiment(
        kind="bilinear",
        in_features=16,
        out_features=16,
        tokens=(8, 12),
        ranks=(2, 4, 8),
        weights=(WeightSource("gaussian", "gaussian"),),
    )


def _drawn(seed: str) -> dict[str, tuple[str, str]]:
    """Return row -> (its fate, where it strikes)."""
    draw = random.Random(seed)  # noqa: S311 (a draw, not a secret)
    rows = [json.dumps(one, sort_keys=True) for one in _points()]
    struck = draw.sample(rows, round(SHARE * len(rows)))
    return {row: (draw.choice(tuple(FATES)), draw.choice(WHERE)) for row in struck}


@cache
def _points() -> tuple[dict[str, Any], ...]:
    from narrows import kernels
    from narrows.bench._facts import thin_variants
    from narrows.bench._point import Point

    asked = _experiment()
    return tuple(
        Point(tokens, rank, variant, "eager", "hot").to_json()
        for tokens in asked.tokens
        for rank in (None, *asked.ranks)
        for variant in (
            kernels.dense_associations(asked.problem(tokens)) if rank is None else thin_variants("bilinear", "cpu")
        )
    )


def judged(report: Report, fates: dict[str, tuple[str, str]]) -> list[str]:
    """Return what is wrong with the rows of a sweep in which some met a fate."""
    faults = []
    paired = {row.tokens for row in report.rows if row.rank is None and _name(row) not in fates}
    for row in report.rows:
        fate = fates.get(_name(row))
        if fate is None:
            fewest = FEWEST if row.tokens in paired else 1  # without any dense row there is no ratio to narrow
            if row.status != "ok" or len(row.samples_ns) < fewest:
                faults.append(f"{_name(row)}: {row.status} ({row.reason}) with {len(row.samples_ns)} samples; no fate")
        else:
            faults += [f"{_name(row)}, {' at '.join(fate)}: {one}" for one in misjudged(row, FATES[fate[0]])]
    return faults


def _name(row: Row) -> str:
    """Return a row's point, as `_drawn` names it."""
    fields = ("tokens", "rank", "variant", "mode", "cache")
    return json.dumps({name: getattr(row, name) for name in fields}, sort_keys=True)


def misjudged(row: Row, fate: tuple[Callable[[], NoReturn], str, str]) -> list[str]:
    """Return what is wrong with what the row of a fate says."""
    _, status, reason = fate
    faults = [] if row.status == status else [f"its row says {row.status} ({row.reason})"]
    if reason not in row.reason:
        faults.append(f"its row gives as the reason: {row.reason}")
    if row.samples_ns:
        faults.append("its row has a time")
    return faults


def forked_worker(kind: type, fates: dict[str, tuple[str, str]]) -> type:
    """Return a worker whose child is forked, not started anew, and meets fates."""

    class Forked(kind):  # type: ignore[misc]
        def __init__(self) -> None:
            import selectors

            self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (`Worker` closes it)
            self._process = _Child(fates, self._log.fileno())
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._process.stdout, selectors.EVENT_READ)

    return Forked


class _Child:
    """What `Worker` needs of a process, for a forked one."""

    def __init__(self, fates: dict[str, tuple[str, str]], log: int) -> None:
        read, self_write = os.pipe()
        self_read, write = os.pipe()
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _serve(fates, read, write, log)
        os.close(read)
        os.close(write)
        self.stdin, self.stdout = os.fdopen(self_write, "w"), os.fdopen(self_read)

    def poll(self) -> int | None:
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def wait(self) -> int:
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _serve(fates: dict[str, tuple[str, str]], read: int, write: int, log: int) -> NoReturn:
    """Answer as the measuring process does, but that a row with a fate meets it."""
    try:
        for file, number in ((read, 0), (write, 1), (log, 2)):
            os.dup2(file, number)
        sys.stdin = os.fdopen(0)
        _meet(fates)
        from narrows.bench import _worker

        _worker.main()
    finally:
        os._exit(0)


def _meet(fates: dict[str, tuple[str, str]]) -> None:
    from narrows.bench._worker import _Server

    def faked(do: str, real: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        def answer(self: _Server, point: dict[str, Any]) -> dict[str, Any]:
            fate, where = fates.get(json.dumps(point, sort_keys=True), ("", ""))
            if where == do:
                FATES[fate][0]()
            return {"ns": 1000.0, "calls": 1} if do == "sample" else real(self, point)

        return answer

    made_up = {"ceilings": CEILINGS, "share_of_float32": None, "conditions": {}, "peak": {"bytes": 4096}}
    stand_in(_Server, **{name: lambda _, found=found, **__: found for name, found in made_up.items()})
    stand_in(_Server, **{do: faked(do, getattr(_Server, do)) for do in WHERE})
