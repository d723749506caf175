"""What a sweep measures, in which order, what it keeps, and what it does when its child dies.

The child is a script here: it answers at once, counts what it was asked, and dies on command.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import pytest

from bench.experiments import small
from bench.in_process import CEILINGS
from narrows._values import OutputError, WeightRecord
from narrows.bench import _sweep
from narrows.bench._assemble import assemble
from narrows.bench._client import RequestFailed, WorkerDied
from narrows.bench._point import Check, Point
from narrows.bench._rounds import best_ceilings
from narrows.bench._store import Store
from narrows.bench._sweep import Sweep
from narrows.errors import ResourceError

MACHINE = {
    "fingerprint": "f",
    "device": "cpu",
    "name": "scripted",
    "cores": 2,
    "threads": 2,
    "caches": {"L3": 1 << 20},
    "features": [],
    "memory_bytes": 1 << 30,
    "num_multiprocessors": 0,
    "software": {},
}


class Scripted:
    """A child whose answers are known; shared state outlives one child."""

    asked: Counter
    die_at: dict  # ("check" | "sample", rank) -> WorkerDied or RequestFailed, once
    noise: float
    stop_after: int  # samples until Ctrl-C

    @classmethod
    def reset(cls, *, noise=0.0, stop_after=10**9):
        cls.asked, cls.die_at, cls.noise, cls.stop_after, cls.order = Counter(), {}, noise, stop_after, []

    def close(self):
        self.asked["closed"] += 1

    def ask(self, do, *, timeout, **request):
        assert timeout > 0
        self.asked[do] += 1
        return getattr(self, do)(**request)

    def open(self, **_):
        return {"machine": MACHINE, "weights": ["w"], "input": "i", "dense": ["left", "right"], "thin": ["three"]}

    def ceilings(self):
        return CEILINGS

    def share_of_float32(self):
        return None

    def conditions(self):
        return {"load average": "0"}

    def load_factors(self):
        return {}

    def prepare(self, index):
        record = WeightRecord("gaussian", "w", "exact", (1.0,), {4: 0.9, 16: 0.5}, 0.0, 1.5)
        errors = [OutputError("gaussian", t, r, 0.5, 1e-7, 0.5, 0.6) for t in (16, 32) for r in (4, 16)]
        return {"weight": asdict(record), "errors": [asdict(e) for e in errors]}

    def peak(self, **_):
        return {"bytes": 1000}

    def _fault(self, do, point):
        fault = self.die_at.pop((do, point["rank"], point["tokens"]), None)
        if fault is not None:
            raise fault

    def check(self, point):
        self._fault("check", point)
        return asdict(Check("ok", launches=2, flops=10**6, bytes_read=1000, bytes_written=1000, memory_bytes=3000))

    def sample(self, point):
        self._fault("sample", point)
        where = Point(**point)
        key = (where.tokens, where.rank, where.variant)
        self.order.append(key)
        self.asked[key] += 1
        if sum(self.asked[k] for k in self.asked if isinstance(k, tuple)) > self.stop_after:
            raise KeyboardInterrupt
        wobble = 1 + self.noise * ((hash((key, self.asked[key])) % 1000) / 1000 - 0.5)
        return {"ns": 1000.0 * (where.rank or 64) * wobble, "calls": 1}


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    Scripted.reset()
    monkeypatch.setattr(_sweep, "Worker", Scripted)


def _run(tmp_path, experiment=None, minutes=1.0):
    with (
        Store(tmp_path / "s.sqlite") as store,
        Sweep(experiment or small(), store, minutes=minutes, progress=lambda _: None) as sweep,
    ):
        sweep.open()
        sweep.run()
        return assemble(sweep, store)


def test_rounds_stop_when_every_interval_is_narrow(tmp_path):
    report = _run(tmp_path)
    assert {len(row.samples_ns) for row in report.rows} == {8}
    assert all(row.status == "ok" for row in report.rows)
    assert len(report.rows) == 2 * (2 + 2)


def test_a_round_holds_every_side_once_and_the_order_changes(tmp_path):
    _run(tmp_path)
    first = Scripted.order[:4]
    assert sorted(map(str, first)) == sorted(map(str, [(16, None, "left"), (16, None, "right"), *_ranks(16)]))
    at_16 = [key for key in Scripted.order if key[0] == 16]
    rounds = [tuple(at_16[i : i + 4]) for i in range(0, len(at_16), 4)]
    assert all(len(set(r)) == 4 for r in rounds)
    assert len(set(rounds)) > 1


def _ranks(tokens):
    return [(tokens, 4, "three"), (tokens, 16, "three")]


def test_noise_asks_for_more_rounds_and_the_time_budget_ends_them(tmp_path):
    Scripted.reset(noise=1.0)
    report = _run(tmp_path, minutes=0.04)
    assert min(len(row.samples_ns) for row in report.rows) > 8


def test_a_finished_run_measures_nothing_again(tmp_path):
    before = _run(tmp_path)
    Scripted.reset()
    after = _run(tmp_path)
    assert Scripted.asked["sample"] == Scripted.asked["check"] == Scripted.asked["prepare"] == 0
    assert before.rows == after.rows


@pytest.mark.parametrize("stop_after", [0, 1, 3, 4, 5, 17])
def test_a_stopped_run_continues_where_it_was_and_repeats_no_thin_sample(tmp_path, stop_after):
    Scripted.reset(stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path)
    kept = Counter(k for k in Scripted.order[:stop_after] if k[1] is not None)
    Scripted.reset()
    report = _run(tmp_path)
    again = Counter(k for k in Scripted.order if k[1] is not None)
    for row in report.rows:
        key = (row.tokens, row.rank, row.variant)
        if row.rank is not None:
            # A sample whose round has no dense sample yet makes no ratio: at most the interrupted round's.
            assert 8 <= kept[key] + again[key] == len(row.samples_ns) <= 9
            assert len(_paired(row, report)) == 8
    assert Scripted.asked["prepare"] == 0


def test_every_thin_sample_has_a_dense_sample_of_its_own_round_after_a_stop(tmp_path):
    Scripted.reset(stop_after=6)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path)
    Scripted.reset()
    report = _run(tmp_path)
    assert all(len(_paired(row, report)) >= 8 for row in report.rows if row.rank is not None)


def _paired(row, report):
    dense = [r for r in report.rows if r.tokens == row.tokens and r.is_dense]
    return set(row.rounds) & set(dense[0].rounds) & set(dense[1].rounds)


@pytest.mark.parametrize("do", ["check", "sample"])
def test_a_child_that_dies_costs_one_row_marked_with_its_signal(tmp_path, do):
    Scripted.die_at = {(do, 16, 32): WorkerDied("killed (signal 9)", "the child process was ended by signal 9")}
    report = _run(tmp_path)
    marked = [row for row in report.rows if row.status != "ok"]
    assert [(row.tokens, row.rank, row.status) for row in marked] == [(32, 16, "killed (signal 9)")]
    assert marked[0].samples_ns == ()
    assert "signal 9" in marked[0].reason
    assert all(len(row.samples_ns) == 8 for row in report.rows if row.status == "ok")
    assert Scripted.asked["open"] == 2


def test_a_killed_row_is_tried_again_by_the_next_run(tmp_path):
    Scripted.die_at = {("check", 16, 32): WorkerDied("killed (signal 9)", "out of memory")}
    _run(tmp_path)
    Scripted.reset()
    report = _run(tmp_path)
    assert {row.status for row in report.rows} == {"ok"}
    assert Scripted.asked["check"] == 1


def test_a_request_that_a_backend_refuses_costs_one_row_and_no_child(tmp_path):
    Scripted.die_at = {("sample", 4, 16): RequestFailed("RuntimeError: not implemented for Half")}
    report = _run(tmp_path)
    assert [(r.tokens, r.rank, r.status) for r in report.rows if r.status != "ok"] == [(16, 4, "failed")]
    assert Scripted.asked["open"] == 1


def test_a_slow_dtype_is_told_with_its_rate(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(Scripted, "share_of_float32", lambda _: 0.15)
    with Store(tmp_path / "s.sqlite") as store, Sweep(small(), store, minutes=1, progress=said.append) as sweep:
        sweep.open()
        sweep.run()
    notices = [step.text for step in said if step.is_notice]
    assert notices == ["float32 is slow here: 15% of float32's FLOP/s (narrows doctor compares dtypes)"]


def test_a_weight_that_cannot_be_factorised_is_one_clear_error(tmp_path, monkeypatch):
    def die(self, index):
        raise WorkerDied("killed (signal 9)", f"weight {index}")

    monkeypatch.setattr(Scripted, "prepare", die)
    with pytest.raises(ResourceError, match=r"weight gaussian could not be factorised here \(killed \(signal 9\)"):
        _run(tmp_path)


def test_a_tiny_budget_still_gets_one_round_of_every_length(tmp_path):
    Scripted.reset(noise=1.0)
    report = _run(tmp_path, minutes=1e-9)
    assert {(row.status, len(row.samples_ns)) for row in report.rows} == {("ok", 1)}


def test_rows_whose_turn_never_came_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(_sweep, "FIRST_ROUND_SECONDS", 0.0)
    report = _run(tmp_path, minutes=1e-9)
    assert {row.status for row in report.rows} == {"not measured"}
    assert report.rows[0].reason == "the time budget was spent before its turn"


def test_the_parts_of_two_measurements_of_the_ceilings_are_the_best_of_both():
    better = {
        **CEILINGS,
        "flops_per_s": 2e11,
        "flops_shape": [9, 9, 9],
        "eager_launch_ns": 5.0,
        "read_bytes_per_s": 1.0,
    }
    best = best_ceilings(CEILINGS, better)
    assert best["flops_per_s"] == 2e11
    assert best["flops_shape"] == [9, 9, 9]
    assert best["eager_launch_ns"] == 1.0
    assert best["read_bytes_per_s"] == 1e10
    assert best_ceilings(None, better) == better


def test_limits_come_from_the_runs_own_ceilings(tmp_path):
    row = next(row for row in _run(tmp_path).rows if row.rank == 4)
    assert row.limit_ns == pytest.approx(10**6 / 1e11 * 1e9 + 2 * 1.0)
