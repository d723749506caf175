"""`tune`: what is measured, what is skipped, what is kept, what is refused."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

import narrows
from bench.tuning import FakeCase
from kernels.tuned.records import OTHER, SILICON, SOFTWARE, FakeKernel, candidate, entry, signature
from narrows.bench import _tune, _tune_contest, _tune_run
from narrows.bench._tune_run import Tuner
from narrows.errors import DeviceError, InputError, RankError, ResourceError, ShapeError
from narrows.kernels import tuned

WANTED = [signature(tokens=tokens, mode=mode) for tokens in (64, 128) for mode in ("graph", "eager")]


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Return what was measured and said, over a store of its own; time stands still unless a test moves it."""
    measured, said, own = [], [], [FakeKernel()]
    clock = itertools.count(step=0)

    def case(where, device, *, cache_bytes):
        measured.append(where)
        return FakeCase(where)

    monkeypatch.setattr(_tune_run, "Case", case)
    monkeypatch.setattr(_tune_run.kernels, "kernels_for", lambda kind: [*own, object()])
    monkeypatch.setattr(_tune_contest.tuned, "failure", lambda kernel, config, where: "")

    class World:
        path = tmp_path / "tuned.sqlite"

        def tuner(self, seconds=100.0, software=SOFTWARE):
            return Tuner(
                device=torch.device("cpu"),
                silicon=SILICON,
                software=software,
                path=self.path,
                seconds=seconds,
                progress=said.append,
            )

    world = World()
    world.measured, world.said, world.own, world.clock = measured, said, own, clock
    return world


def kept(world):
    return {e.signature(0): e for e in tuned.read(world.path, SILICON).entries}


def test_every_call_is_measured_once_and_kept(world):
    found = world.tuner().run(WANTED)
    assert [e.signature(0) for e in found] == WANTED == world.measured
    assert kept(world) == dict(zip(WANTED, found, strict=True))
    assert found[0].winner == "triton"
    assert found[0].software == SOFTWARE
    world.tuner().run(WANTED)
    assert world.measured == WANTED
    assert world.said[-1].is_notice
    assert "nothing left to measure" in world.said[-1].text


def test_again_measures_what_is_known(world):
    world.tuner().run(WANTED[:1])
    world.tuner().run(WANTED[:1], again=True)
    assert world.measured == WANTED[:1] * 2


def test_a_stale_choice_is_measured_again_and_replaced(world):
    tuned.write(world.path, SILICON, [entry(software=OTHER, more={"gluon": candidate(9.0)})])
    (found,) = world.tuner().run(WANTED[:1])
    assert found.software == SOFTWARE
    assert "gluon" not in found.candidates


def test_a_new_implementation_is_measured_alone_beside_cublas(world):
    world.tuner().run(WANTED[:1])
    before = kept(world)[WANTED[0]].candidates
    world.own.append(FakeKernel(name="newer"))
    (found,) = world.tuner().run(WANTED[:1])
    assert set(found.candidates) == {"two", "triton", "newer"}
    assert {name: found.candidates[name] for name in before} == before
    assert len(world.own[1].runs) == 0  # the fake case runs nothing


def test_the_persistent_kernel_is_not_tried_on_few_tokens(world):
    world.own.append(FakeKernel(name="gluon"))
    short, long = world.tuner().run([WANTED[0]._replace(tokens=tokens) for tokens in (256, 512)])
    assert "gluon" not in short.candidates
    assert "gluon" in long.candidates
    (hosted,) = world.tuner().run([WANTED[0]._replace(tokens=512, mode="eager")])
    assert "gluon" not in hosted.candidates


def test_a_kernel_that_refuses_is_not_measured(world):
    world.own[0].refusal = "needs a newer device"
    (found,) = world.tuner().run(WANTED[:1])
    assert set(found.candidates) == {"two"}
    assert found.winner == "two"


def test_when_the_time_is_spent_it_says_how_many_are_left(world, monkeypatch):
    ticks = iter([0.0, *(60.0 * n for n in range(100))])
    monkeypatch.setattr(_tune_run.time, "monotonic", lambda: next(ticks))
    found = world.tuner(seconds=90.0).run(WANTED)
    assert 1 <= len(found) < 4
    left = 4 - len(found)
    assert f"the time is spent: {left} of 4 calls are left; run it again" in world.said[-1].text


def test_ctrl_c_keeps_what_was_chosen(world, monkeypatch):
    def case(where, device, *, cache_bytes):
        if where == WANTED[2]:
            raise KeyboardInterrupt
        return FakeCase(where)

    monkeypatch.setattr(_tune_run, "Case", case)
    with pytest.raises(KeyboardInterrupt):
        world.tuner().run(WANTED)
    assert list(kept(world)) == sorted(WANTED[:2], key=str)


def test_a_call_that_does_not_fit_is_left_out_and_named(world, monkeypatch):
    def case(where, device, *, cache_bytes):
        if where == WANTED[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return FakeCase(where)

    monkeypatch.setattr(_tune_run, "Case", case)
    assert len(world.tuner().run(WANTED)) == 3
    assert f"left out: {WANTED[0]} does not fit the device's free memory" in [p.text for p in world.said if p.is_notice]


def test_the_modes_of_one_call_follow_each_other():
    found = _tune.signatures(
        shapes=[(64, 64)],
        tokens=(8, 16),
        ranks=(4,),
        kinds=("bilinear",),
        modes=("graph", "eager"),
        dtype="bfloat16",
        device=0,
    )
    assert [(s.tokens, s.mode) for s in found] == [(8, "graph"), (8, "eager"), (16, "graph"), (16, "eager")]


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"kinds": ("attention",)}, InputError, "kinds=.'attention',. must name at least one of linear, bilinear"),
        ({"modes": ()}, InputError, "modes=.. must name at least one of eager, graph"),
        ({"tokens": (0,)}, InputError, r"tokens=\(0,\), ranks=\(4,\) must name at least one each, tokens >= 1"),
        ({"ranks": (65,)}, RankError, r"rank=65 is outside 1\.\.64 = min\(D=64, E=96\)"),
        ({"kinds": ("bilinear",)}, ShapeError, r"Y = X needs a square weight, but it is \(96, 64\)"),
    ],
)
def test_what_cannot_be_tuned_is_refused(change, kind, text):
    asked = {"shapes": [(64, 96)], "tokens": (8,), "ranks": (4,), "kinds": ("linear",), "modes": ("graph",)}
    with pytest.raises(kind, match=text):
        _tune.signatures(**asked | change, dtype="bfloat16", device=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")
def test_without_a_gpu_it_says_so():
    with pytest.raises(
        ResourceError,
        match=re.escape(f"no CUDA device is here (torch {torch.__version__}): choices are tuned for NVIDIA GPUs only"),
    ):
        narrows.tune()
    with pytest.raises(DeviceError, match="device='cpu': choices are tuned for CUDA devices"):
        narrows.tune(device="cpu")
    with pytest.raises(InputError, match="minutes=0 must be a finite number > 0"):
        narrows.tune(minutes=0)


@pytest.mark.parametrize(("device", "index"), [("cuda:0", 0), ("cuda:1", 1), ("cuda", 1)])
def test_a_device_that_is_named_is_the_one_that_is_tuned(device, index, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(_tune, "machine", lambda _: None)
    assert _tune.device_index(device) == index
