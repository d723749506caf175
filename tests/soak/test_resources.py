"""Memory that runs out: the short form of `python -m soak resources`, and its canaries."""

from __future__ import annotations

from functools import partial

import pytest
from soak.concurrency.children import pool
from soak.resources import cuda, refused, rows
from soak.resources.part import PARENT_BYTES, PART, figure, sweep_figure
from soak.resources.peak import parent_growth

from narrows._values import Row

SEED = 3


@pytest.fixture(scope="module")
def executor(tmp_path_factory):
    with pool(tmp_path_factory.mktemp("resources"), 1) as found:
        yield found


@pytest.fixture(scope="module")
def giants(executor, tmp_path_factory):
    return executor.submit(refused.made, tmp_path_factory.mktemp("giants")).result()


def test_rows_that_are_killed_or_run_out_of_memory_say_so_and_the_sweep_goes_on(executor):
    found = sweep_figure(executor, SEED, 2)
    assert found.status == "ok", str(found)
    assert (found.part, found.count) == (PART, 2)


@pytest.mark.parametrize("name", refused.FORETOLD)
def test_what_does_not_fit_is_refused_before_it_is_tried(executor, giants, name):
    assert executor.submit(partial(refused.refused, is_blind=False), name, giants).result() == []


@pytest.mark.parametrize("name", refused.UNTOLD)
def test_what_does_not_fit_though_it_seemed_to_is_survived(executor, giants, name):
    assert executor.submit(partial(refused.refused, is_blind=True), name, giants).result() == []


def test_the_process_that_owns_the_store_does_not_grow_with_what_is_measured(executor):
    assert executor.submit(parent_growth).result() <= PARENT_BYTES


def test_something_that_takes_its_memory_before_it_is_refused_is_reported(executor, giants):
    found = executor.submit(refused.planted, giants).result()
    assert found[0] == "planted: ended with 0, not 3: fine"
    assert found[1] == "planted: does not say 'GiB are free': fine"
    assert found[2].startswith("planted: took ")


def row(status, reason="", samples=()):
    return Row(8, 2, "two", "eager", "hot", status=status, reason=reason, samples_ns=tuple(samples), flops=1)


@pytest.mark.parametrize(
    ("fate", "found"),
    [
        ("killed", row("ok", samples=(1.0,) * 8)),
        ("killed", row("failed", "ended by signal 9")),
        ("MemoryError", row("does not fit", "?")),
        ("torch's allocator", row("does not fit", "you tried to allocate 5 bytes", samples=(1.0,))),
    ],
)
def test_a_row_that_does_not_say_what_befell_it_is_reported(fate, found):
    assert rows.misjudged(found, rows.FATES[fate])


def test_a_row_that_was_spoiled_by_its_neighbours_fate_is_reported():
    class Report:
        rows = (row("failed", "of another row"), row("ok", samples=(1.0,) * 8))

    (fault,) = rows.judged(Report, {})
    assert "failed (of another row) with 0 samples; no fate" in fault


def test_a_figure_with_a_fault_has_failed():
    assert figure("n", "a", "r", ["fault"], 1).status == "failed"


@pytest.mark.gpu
def test_a_row_that_does_not_fit_a_gpu_is_refused_and_the_sweep_goes_on():
    assert cuda.foretold() == []


@pytest.mark.gpu
def test_a_row_that_runs_out_of_a_gpus_memory_says_so_and_the_sweep_goes_on():
    assert cuda.untold() == []
