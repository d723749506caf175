"""Processes that tune one device, or time layers into one file: each row is made by one of them."""

from __future__ import annotations

from contextlib import closing
from sqlite3 import connect

import pytest
import torch
from filelock import FileLock

from bench.tuning import FakeCase
from kernels.tuned.records import SILICON, SOFTWARE, FakeKernel, entry, signature
from narrows.bench import _layers, _layers_record, _tune_contest, _tune_run, layer_times
from narrows.bench._tune_run import Tuner
from narrows.errors import ResourceError
from narrows.kernels import tuned

WANTED = [signature(tokens=tokens) for tokens in (64, 128, 256)]


@pytest.fixture
def tuner(monkeypatch, tmp_path):
    """Return a tuner of its own for each call, over one store; what is measured calls `tuner.case` first."""

    class World:
        path, measured, said = tmp_path / "tuned.sqlite", [], []

        def case(self, where):
            self.measured.append(where)

        def __call__(self):
            return Tuner(
                device=torch.device("cpu"),
                silicon=SILICON,
                software=SOFTWARE,
                path=self.path,
                seconds=100.0,
                progress=lambda step: self.said.append(step.text),
            )

    world = World()

    def case(where, device, *, cache_bytes):
        world.case(where)
        return FakeCase(where)

    monkeypatch.setattr(_tune_run, "Case", case)
    monkeypatch.setattr(_tune_run.kernels, "kernels_for", lambda kind: [FakeKernel()])
    monkeypatch.setattr(_tune_contest.tuned, "failure", lambda kernel, config, where: "")
    return world


def test_what_another_process_has_tuned_meanwhile_is_not_measured_again(tuner, monkeypatch):
    def case(where):
        tuner.measured.append(where)
        tuned.write(tuner.path, SILICON, [entry(tokens=128)])

    monkeypatch.setattr(tuner, "case", case)
    found = tuner().run(WANTED)
    assert tuner.measured == [WANTED[0], WANTED[2]]
    assert [one.signature(0) for one in found] == WANTED


def test_a_process_that_tunes_the_same_device_is_waited_for(tuner):
    with tuned.turn(tuner.path, SILICON, waiting=lambda: pytest.fail("waited")):
        (lock,) = tuner.path.parent.glob("tuned.sqlite.*.lock")
    other = FileLock(lock)
    other.acquire()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tuner, "_wait", lambda self: other.release())
        tuner().run(WANTED[:1])
    assert tuner.measured == WANTED[:1]


@pytest.mark.parametrize("how", ["deleted", "emptied"])
def test_choices_that_go_away_while_tuning_are_an_error(tuner, monkeypatch, how):
    def case(where):
        tuner.measured.append(where)
        if len(tuner.measured) == 2 and how == "deleted":
            for one in tuner.path.parent.glob("tuned.sqlite*"):
                one.unlink()
        elif len(tuner.measured) == 2:
            with closing(connect(tuner.path)) as db, db:
                db.execute("DELETE FROM choices")

    monkeypatch.setattr(tuner, "case", case)
    with pytest.raises(ResourceError, match=r"tuned\.sqlite are gone: the file was deleted.*Lost: 1\."):
        tuner().run(WANTED)


@pytest.fixture
def timed(monkeypatch):
    made = []

    def measured(groups, *_, **__):
        for group in groups:
            made.append(group[:2])
            yield group, (_layers_record.LayerTime(*group[:2], "dense", None, group[2], 1.0),)

    monkeypatch.setattr(_layers, "measured", measured)
    return made


def test_a_process_that_times_layers_waits_and_finds_what_the_other_has_measured(tmp_path, timed):
    store, told = tmp_path / "layers.json", []
    other = FileLock(f"{store}.lock")
    other.acquire()

    def progress(what, done, of):
        told.append(what)
        other.release()
        layer_times([(8, 8)], rows=[4], store=store)  # as the other process, just before it ended

    found = layer_times([(8, 8), (8, 16)], rows=[4], store=store, progress=progress)
    assert told == ["waiting for another run that times layers"]
    assert timed == [(8, 8), (8, 16)]
    assert len(found.times) == 2
