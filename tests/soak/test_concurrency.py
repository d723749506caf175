"""Many processes on one store, cache or folder: the short form of `python -m soak concurrency`, and its canaries."""

from __future__ import annotations

from pathlib import Path

import pytest
from soak.concurrency import canaries, disks
from soak.concurrency.children import pool
from soak.concurrency.models import base_made
from soak.concurrency.part import PART, ROUNDS, disk_figure, figure, rounds_figure
from soak.crashes.child import Answer, Ended

SEED = 11


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("concurrency")


@pytest.fixture(scope="module")
def executor(place):
    with pool(place, 1) as found:
        yield found


@pytest.mark.parametrize("what", ["measure", "write", "tune", "layers"])
def test_processes_that_work_at_once_lose_nothing_and_do_nothing_twice(executor, place, what):
    found = rounds_figure(executor, what, ROUNDS[what], place, seed=SEED, number=1)
    assert found.status == "ok", str(found)
    assert (found.part, found.count) == (PART, 1)


def test_folders_that_are_saved_and_loaded_at_once_are_whole(executor, place):
    base = executor.submit(base_made, place).result()
    found = rounds_figure(executor, "save", ROUNDS["save"], base, seed=SEED, number=1)
    assert found.status == "ok", str(found)


def test_a_process_that_raises_and_one_that_hangs_are_reported(executor):
    raised, hung = executor.submit(canaries.hanging, 0.3).result()
    assert "planted" in raised
    assert hung == "process 1 did not end within 0 s"


def test_a_lost_a_doubled_and_a_damaged_row_are_reported(executor):
    found = executor.submit(canaries.spoiled_store).result()
    assert found[:3] == ["lost: row 9", "1 rows that no process says it kept", "measured 2 times: row 1"]
    assert "sample row 1 is not what was written" in found[3]


def test_a_reader_of_a_row_that_is_not_whole_reports_it(executor):
    (found,) = executor.submit(canaries.spoiled_reader).result()
    assert "1 rows are not whole" in found


@pytest.mark.parametrize("plant", [canaries.tuned_without_turns, canaries.timed_without_turns])
def test_work_that_is_done_twice_without_turns_is_reported(executor, plant):
    assert any(" times: " in one for one in executor.submit(plant, "0").result())


HOME = Path("/home")
SAID = "error: store /home/s.sqlite could not be written (disk I/O error). Free disk space or make it writable."


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (SAID.replace("/home/s.sqlite", "s"), "does not name the path"),
        (SAID.replace("disk I/O error", "?"), "does not name the cause"),
        (SAID.partition("Free")[0], "does not say what to do"),
        (f"{SAID}\nerror: {SAID}", "is not one clear error"),
        (f"Traceback: {SAID}", "is not one clear error"),
    ],
)
def test_an_error_that_lacks_something_is_reported(tmp_path, said, fault):
    (found,) = disks.told_well(HOME, Ended(0, (), Answer(3, said), 0.0), disks.FAILS)
    assert found.startswith(fault)
    assert not disks.told_well(HOME, Ended(0, (), Answer(3, SAID), 0.0), disks.FAILS)


@pytest.mark.parametrize("code", [0, 1, 70])
def test_a_run_that_says_nothing_of_its_disk_is_reported(code):
    (found,) = disks.told_well(HOME, Ended(0, (), Answer(code, SAID), 0.0), disks.FAILS)
    assert found.startswith("ended with 0: Answer(code=")


def test_a_figure_with_a_fault_has_failed_and_says_how_to_repeat_it():
    found = figure("n", "a", "r", ["fault [python -m soak.concurrency tune 3 --seed 0]"], 4)
    assert found.status == "failed"
    assert "tune 3 --seed 0" in str(found)


def test_what_could_not_be_shown_does_not_count_as_passed():
    assert disk_figure("n", "a", iter([None, []]), 0).status == "not shown"
    assert disk_figure("n", "a", iter([[], []]), 0).status == "ok"
    assert disk_figure("n", "a", iter([None, ["fault"]]), 0).status == "failed"
