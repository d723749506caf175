"""Rows and weights that do not fit the memory: foretold where that can be, and the others go on where it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.experiments import small
from bench.in_process import InProcess
from narrows._machine import _memory, machine
from narrows.bench import _facts, _sweep, _worker, run_experiment
from narrows.bench._client import RequestFailed, unpacked
from narrows.bench._facts import COLD_SETS, facts_of, num_sets
from narrows.bench._point import Point, cost_of
from narrows.bench._session import Session
from narrows.errors import ResourceError

HOT = Point(32, 4, "three", "eager", "hot")
COLD = replace(HOT, cache="cold")


def test_a_cold_row_needs_all_the_sets_that_it_rotates_over(monkeypatch):
    problem = small().problem(HOT.tokens)
    cost = cost_of(HOT, problem)
    sets, one = num_sets(COLD, cost, "cpu"), cost.bytes_read + cost.bytes_written
    assert num_sets(HOT, cost, "cpu") == 1
    # Over 3 times the last-level cache, unless that is more calls than a ring holds.
    assert sets * one >= COLD_SETS * machine().last_level_cache_bytes or sets == 4096
    enough = int(_facts.MEMORY_MARGIN * (cost.memory_bytes + (sets - 1) * one)) + 1
    for free, hot, cold in ((enough, "ok", "ok"), (enough - 2, "ok", "does not fit")):
        monkeypatch.setattr(_facts, "available_bytes", lambda _, free=free: free)
        assert facts_of(HOT, problem).status == hot
        assert facts_of(COLD, problem).status == cold


def test_a_sample_that_runs_out_of_memory_costs_its_row_and_frees_what_it_held(tmp_path, monkeypatch):
    sample = Session.sample
    sessions = []

    def short(self, point):
        sessions.append(self)
        if (point.tokens, point.rank, point.variant) == (32, 16, "two"):
            monkeypatch.setattr(self._timer(point), "sample", out_of_memory, raising=False)
        return sample(self, point)

    def out_of_memory():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nmore")

    monkeypatch.setattr(Session, "sample", short)
    monkeypatch.setattr(_sweep, "Worker", InProcess)
    report = run_experiment(small(), store=tmp_path / "s.sqlite", minutes=0.02)
    (row,) = [row for row in report.rows if row.status != "ok"]
    assert (row.tokens, row.rank, row.variant, row.status) == (32, 16, "two", "does not fit")
    assert row.reason == "OutOfMemoryError: CUDA out of memory. Tried to allocate 9.00 GiB."
    assert row.memory_bytes > 0  # what it costs is known all the same
    assert not any(point.rank == 16 and point.variant == "two" for point in sessions[-1]._timers if point.tokens == 32)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (MemoryError(), "does not fit"),
        (torch.OutOfMemoryError("CUDA out of memory"), "does not fit"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "does not fit"),
        (RuntimeError("not implemented for Half"), "failed"),
    ],
)
def test_the_child_tells_memory_from_other_failures(fault, status):
    class Server:
        def sample(self):
            raise fault

    with pytest.raises(RequestFailed) as found:
        unpacked(_worker._answer(Server(), '{"do": "sample"}'))
    assert found.value.status == status


def test_a_weight_that_does_not_fit_is_refused_before_it_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(_memory, "LEAST_LOOK", 0)
    monkeypatch.setattr(_memory, "available_bytes", lambda _: 64 * 64 * 12 - 1)
    session = Session(small(), tmp_path)
    with pytest.raises(ResourceError, match=r"weight gaussian \(64, 64\), with a copy in float64, takes"):
        session.prepare(0)


def test_an_input_must_fit_the_device_too(tmp_path, monkeypatch):
    monkeypatch.setattr("narrows.bench._session.shortage", lambda num_bytes, device: "x" if device == "cuda" else "")
    session = Session(small(), tmp_path)
    assert session._num_rows == 32
    session.experiment = replace(session.experiment, device="cuda")
    del session.__dict__["_num_rows"]
    assert session._num_rows == 0
