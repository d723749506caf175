"""The search, the race and the verdict, on times that the test sets; one real case on the CPU."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from bench.tuning import FakeCase, FakeTimer
from kernels.tuned.records import FakeKernel, nothing_written, one_element, signature
from narrows.bench import _timer, _tune_contest
from narrows.bench._tune_case import Case
from narrows.bench._tune_contest import Contest
from narrows.bench._tune_race import MOST_ROUNDS, race
from narrows.bench._tune_search import (
    PERSISTENT_PROJECTIONS,
    PROJECTIONS,
    SECONDS,
    fastest,
    launchings,
    projections,
    search,
    seconds,
    short_chains,
)
from narrows.errors import ResourceError
from narrows.kernels.tuned import Config, Limits, Neighbours, Tiles, analytic_config

H200 = Limits()
PLACES = [
    signature(tokens=t, kind=k, rank=r) for t in (1, 64, 1024, 8192) for k in ("bilinear", "linear") for r in (16, 256)
]


def start(where):
    return analytic_config(where, H200)


@pytest.mark.parametrize("where", PLACES, ids=str)
def test_candidates_are_few_distinct_and_fit_the_device(where):
    now = start(where)
    first, second = projections(now.project, where, H200), seconds(now.second, where, H200)
    assert 4 <= len(set(first)) == len(first) <= PROJECTIONS
    assert len(set(second)) == len(second) <= SECONDS
    assert second or where.tokens == 1  # scores of one token fit the smallest tile
    assert now.project not in first
    assert now.second not in second
    for tiles in first:
        assert tiles.stages * (tiles.m + tiles.n) * tiles.k * 2 <= H200.shared_bytes
        assert tiles.split * tiles.k <= where.in_features
    assert now not in launchings(now, where)
    assert {c.overlap for c in launchings(now, where) if c.reduce == "kernel"} == {"last", "all", "early"}


def test_a_short_linear_call_is_also_tried_with_the_sum_in_the_second_kernel():
    where = signature(kind="linear", tokens=64)
    assert {c.reduce for c in launchings(start(where), where)} == {"kernel", "load"}
    long = signature(kind="linear", tokens=4096)
    assert {c.reduce for c in launchings(start(long), long)} == {"kernel"}


def test_the_search_goes_from_part_to_part_and_finds_the_best_of_each():
    where = signature()
    now = start(where)
    goal_project, goal_second = projections(now.project, where, H200)[7], seconds(now.second, where, H200)[3]
    tried = []

    def time(config):
        tried.append(config)
        wrong = (config.project != goal_project) + (config.second != goal_second) + (config.overlap != "last")
        return 1000.0 * (1 + wrong)

    times = search(now, (), where, H200, time, name="triton")
    assert fastest(times, 1) == [Config(goal_project, goal_second, "last")]
    assert len(tried) == len(set(tried)) <= 1 + PROJECTIONS + SECONDS + 5


def test_the_persistent_kernel_is_searched_in_its_own_sizes_only():
    where = signature(tokens=4096)
    times = search(start(where), (), where, H200, lambda c: 1.0 / (c.second.n * c.second.split), name="gluon")
    assert len({config.project for config in times}) == 1 + PERSISTENT_PROJECTIONS
    assert {config.projection for config in times} == {"own", "cublas"}
    (best,) = fastest(times, 1)
    assert (best.second.n, best.second.split) == (256, 2)
    assert len(times) <= 34


def test_the_host_bound_mode_is_also_offered_the_fewest_launches():
    now = start(signature(tokens=64))
    found = short_chains(now, signature(tokens=64))
    assert {config.project.split for config in found} == {1}
    linear = signature(kind="linear", tokens=16)
    assert "load" in {config.reduce for config in short_chains(start(linear), linear)}


def test_what_cannot_run_is_never_a_finalist_and_a_hint_is_tried_first():
    where, hint = signature(), Config(Tiles(32, 32, 32), Tiles(32, 32, 32))
    times = search(start(where), (hint,), where, H200, lambda c: 1.0 if c == hint else math.inf, name="triton")
    assert fastest(times, 4) == [hint]


def test_a_race_ends_when_every_ratio_is_known_and_not_before_eight_rounds():
    medians, ratios = race({"a": FakeTimer(100.0), "b": FakeTimer(50.0)}, "a")
    assert medians["b"] == pytest.approx(50, rel=0.002)
    assert ratios["b"].value == pytest.approx(2, rel=0.002)
    assert ratios["b"].num_rounds == 8
    assert ratios["a"].value == ratios["a"].low == ratios["a"].high == 1


def test_a_noisy_race_ends_too():
    noisy = FakeTimer(100.0)
    times = iter(range(10_000))
    noisy.sample = lambda: (50.0 + 10 * (next(times) % 7), 1)
    _, ratios = race({"a": FakeTimer(100.0), "b": noisy}, "a")
    assert ratios["b"].num_rounds == MOST_ROUNDS


@pytest.fixture
def said():
    return []


@pytest.fixture
def contest(said, monkeypatch):
    monkeypatch.setattr(_tune_contest.tuned, "failure", lambda kernel, config, where: "")
    return Contest(say=said.append)


def test_every_implementations_best_is_kept_with_its_ratio_and_error(contest, said):
    best = start(signature())
    case = FakeCase(ns_of=lambda config: 4000.0 if config.overlap == "last" else 5000.0)
    found = contest.candidates(case, [FakeKernel()], Neighbours())
    assert set(found) == {"two", "triton"}
    assert found["two"].config is None
    assert found["triton"].config.overlap == "last"
    assert found["triton"].speedup == pytest.approx(2.5, rel=0.01)
    assert found["triton"].low > 1.02
    assert (found["triton"].error, found["two"].error, found["triton"].rounds) == (0.5, 0.25, 8)
    assert case.quick[0] == replace(best, overlap="all")
    assert any("triton, sizes 3" in text for text in said)


def test_a_wrong_finalist_has_no_time_however_fast(contest):
    case = FakeCase(
        ns_of=lambda config: 1.0 if config.overlap == "last" else 5000.0,
        error_of=lambda config: math.inf if config.overlap == "last" else 0.5,
    )
    assert contest.candidates(case, [FakeKernel()], Neighbours())["triton"].config.overlap != "last"


def test_a_kernel_that_is_always_wrong_is_kept_with_its_reason(contest):
    found = contest.candidates(FakeCase(error_of=lambda _: 7.5), [FakeKernel()], Neighbours())
    assert found["triton"].median_ns is None
    assert not found["triton"].checked
    assert "an element is 7.5 times its error bound away from float64" in found["triton"].reason


def test_a_kernel_that_never_compiles_is_kept_with_its_reason(contest):
    found = contest.candidates(FakeCase(ns_of=lambda _: math.inf), [FakeKernel()], Neighbours())
    assert "RuntimeError: out of resource: shared memory" in found["triton"].reason


def test_sizes_that_fail_the_self_check_are_not_raced(contest, monkeypatch):
    monkeypatch.setattr(_tune_contest.tuned, "failure", lambda kernel, config, where: "3 elements are wrong")
    found = contest.candidates(FakeCase(), [FakeKernel()], Neighbours())
    assert "3 elements are wrong" in found["triton"].reason


def test_the_modes_of_a_call_share_one_search(contest):
    first = FakeCase(signature(mode="graph"))
    both = [FakeKernel(), FakeKernel(name="gluon")]
    contest.candidates(first, both, Neighbours())
    second = FakeCase(signature(mode="eager"))
    assert contest.candidates(second, both, Neighbours())["gluon"].median_ns is not None
    assert first.quick
    assert not second.quick
    other = FakeCase(signature(tokens=65))
    contest.candidates(other, both, Neighbours())
    assert other.quick


def test_a_wrong_cublas_ends_everything(contest):
    with pytest.raises(ResourceError, match="cuBLAS is wrong for bilinear T=64 .* 1.5 times its error bound"):
        contest.candidates(FakeCase(base_error=1.5), [FakeKernel()], Neighbours())


CPU = torch.device("cpu")
CASES = {
    "bilinear": signature(tokens=70, in_features=48, out_features=48, rank=8, dtype="float32", mode="eager"),
    "bilinear, y": signature(tokens=9, other_tokens=5, in_features=48, out_features=40, rank=8, dtype="float32"),
    "linear": signature(kind="linear", tokens=7, in_features=48, out_features=40, rank=8, dtype="bfloat16"),
    "heads": signature(tokens=7, in_features=48, out_features=48, rank=8, heads=3, dtype="float32"),
}


@pytest.mark.parametrize("where", CASES.values(), ids=CASES)
def test_a_real_case_checks_every_row_that_is_timed(where, monkeypatch):
    monkeypatch.setattr(_timer, "SAMPLE_NS", 1e4)
    case = Case(where, CPU, cache_bytes=1 << 16)
    config = start(where)
    assert case.error(case.cublas_timer("eager")) <= 1
    assert case.error(case.timer(FakeKernel(where.kind), config, "eager")) <= 1
    assert case.error(case.timer(FakeKernel(where.kind, spoil=nothing_written), config, "eager")) == math.inf
    assert case.error(case.timer(FakeKernel(where.kind, spoil=one_element), config, "eager")) > 1
    assert case.quick_ns(FakeKernel(where.kind), config) > 0


def test_a_real_case_rotates_x_and_the_result_over_three_caches():
    where = CASES["linear"]
    case = Case(where, CPU, cache_bytes=1 << 16)
    moved = 2 * (7 * 48 + 7 * 40)
    sets = case._sets()
    assert len(sets) * moved >= 3 * (1 << 16)
    assert len({x.data_ptr() for x, _, _ in sets}) == len({out.data_ptr() for *_, out in sets}) == len(sets)
    assert all(torch.equal(x, sets[0][0]) for x, _, _ in sets)


@pytest.mark.gpu
def test_on_a_gpu_one_call_is_tuned_in_both_modes(tmp_path, monkeypatch):
    import narrows
    from narrows.kernels import tuned
    from narrows.kernels.tuned import _store

    monkeypatch.setattr(_store, "default_path", lambda: tmp_path / "tuned.sqlite")
    monkeypatch.setattr(tuned, "default_path", lambda: tmp_path / "tuned.sqlite")
    entries = narrows.tune(shapes=[(1024, 1024)], tokens=[64], ranks=[64], kinds=["bilinear"], minutes=2.0)
    assert [e.mode for e in entries] == ["graph", "eager"]
    for each in entries:
        own = each.candidates["triton"]
        assert own.checked, own.reason
        assert own.error <= 1
    where = entries[0].signature(torch.cuda.current_device())
    assert tuned.implementation(where) == entries[0].winner
    tuned.forget()


def test_a_device_that_broke_down_ends_the_run_with_what_was_raised(monkeypatch):
    def broken(_):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(
        ResourceError, match=r"the device broke down \(ValueError: first\)\. Every choice made before is kept; run the"
    ):
        _tune_contest._told(ValueError("first\nsecond"), torch.device("cuda:0"))
    assert _tune_contest._told(ValueError("first\nsecond"), torch.device("cpu")) == "ValueError: first"
