"""Times of layers' forms: which are measured, what is concluded from them, what is kept, and the calls themselves."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch

from narrows._values import Workload
from narrows.bench import LayerTime, LayerTimes, _layers, _layers_calls, _layers_run, layer_times, rank_step
from narrows.bench._layers_calls import Forms, call, check, weight_shapes
from narrows.bench._layers_grid import options, options_of
from narrows.errors import FileError, ImplementationError, InputError, ResourceError

SHAPES = [(128, 128), (128, 64)]


class FakeForms:
    """Calls that take 1 ns a row for every number of the weight, and 1 us a row."""

    def __init__(self, made):
        self.made = made

    def inputs(self, rows, in_features):
        return torch.empty(rows, in_features, device="meta")

    def timer(self, x, out_features, form, rank):
        self.made.append((x.shape[1], out_features, x.shape[0], form, rank))
        numbers = sum(a * b for a, b in weight_shapes(x.shape[1], out_features, form, rank))
        return FakeTimer(x.shape[0] * (1000.0 + numbers))


class FakeTimer:
    def __init__(self, ns):
        self.ns = ns

    def sample(self):
        return self.ns, 1


@pytest.fixture
def fake(monkeypatch):
    made = []
    monkeypatch.setattr(_layers_run, "_forms", lambda *_: FakeForms(made))
    return made


def costs(monkeypatch, seconds):
    monkeypatch.setattr(_layers_run, "_sample_seconds", lambda *_: seconds)


def timed(made):
    """What was made a timer for, without the one sample of dense that tells what time a group needs."""
    return [one for one in made if one[3] != "dense"]


@pytest.mark.parametrize(("in_features", "out_features"), [(576, 576), (576, 192), (1536, 576), (32, 32), (8, 3)])
@pytest.mark.parametrize("coarseness", [1, 4])
def test_every_rank_of_the_grid_makes_the_layer_smaller_and_the_next_one_would_not(
    in_features, out_features, coarseness
):
    step = rank_step(in_features, out_features, coarseness=coarseness)
    found = options(in_features, out_features, step)
    assert found[0] == ("dense", None)
    for form in ("low-rank", "pivot"):
        ranks = [rank for name, rank in found if name == form]
        assert ranks == list(range(step, step * (len(ranks) + 1), step))
        sizes = [sum(a * b for a, b in weight_shapes(in_features, out_features, form, r)) for r in ranks]
        assert all(size < in_features * out_features for size in sizes)
        beyond = step * (len(ranks) + 1)
        fewest = min(in_features, out_features)
        larger = beyond * (in_features + out_features - (beyond if form == "pivot" else 0))
        assert beyond >= fewest or larger >= in_features * out_features


def test_a_narrow_layer_has_a_finer_step():
    assert rank_step(576, 576) == 32
    assert rank_step(576, 192) == 16
    assert rank_step(32, 64) == 4
    assert rank_step(4096, 14336, coarseness=4) == 128


def test_ranks_that_would_not_make_a_layer_smaller_are_left_out():
    assert options_of(64, 64, (64, 16, 32, 16)) == (
        ("dense", None),
        ("low-rank", 16),
        ("pivot", 16),
        ("pivot", 32),
    )


def test_a_speedup_is_dense_over_the_form_and_faster_only_beyond_a_tie(fake):
    ranks = {(128, 128): [16, 32, 64, 120], (128, 64): []}
    found = layer_times(SHAPES, rows=[4], ranks=ranks, seconds=0.0)
    pivot = found.at(128, 128, rows=4, form="pivot", rank=64)
    assert pivot.speedup == pytest.approx((1000 + 16384) / (1000 + 64 * 192))
    assert pivot.speedup_low == pivot.speedup_high == pivot.speedup
    assert pivot.is_faster
    assert not found.at(128, 128, rows=4).is_faster
    close = found.at(128, 128, rows=4, form="pivot", rank=120)  # 16320 of 16384 numbers
    assert 1 < close.speedup < 1.02
    assert not close.is_faster
    assert found.of(128, 64, 4) == (found.at(128, 64, rows=4),)


def test_equal_layers_are_measured_once_and_every_number_of_rows_apart(fake):
    found = layer_times([(128, 64)] * 5, rows=[1, 7, 7], ranks={(128, 64): [16]}, seconds=0.0)
    assert timed(fake) == [(128, 64, rows, form, 16) for rows in (1, 7) for form in ("low-rank", "pivot")]
    assert found.at(128, 64, rows=7).time_ns == 7 * found.at(128, 64, rows=1).time_ns


def test_no_time_at_all_still_means_eight_rounds_and_none_of_them_more(fake):
    told = []
    layer_times([(128, 64)], rows=[1], ranks={(128, 64): [16]}, seconds=0.0, progress=lambda *all_: told.append(all_))
    assert told == [("timing layers: 128 -> 64 at 1 rows", done, 8) for done in range(1, 9)]


def test_noisy_rounds_go_on_until_the_time_is_over_or_there_are_32(fake, monkeypatch):
    noise = iter(range(10**6))
    monkeypatch.setattr(FakeTimer, "sample", lambda self: (self.ns * (1 + 0.2 * (next(noise) % 5)), 1))
    told = []
    layer_times([(128, 64)], rows=[1], ranks={(128, 64): [16]}, seconds=60.0, progress=lambda *all_: told.append(all_))
    assert len(told) == 32
    assert told[-1][1:] == (8, 8)


def test_less_time_makes_a_coarser_grid(fake, monkeypatch):
    costs(monkeypatch, 0.001)
    fine = layer_times([(512, 512)], rows=[1], seconds=10.0)
    coarse = layer_times([(512, 512)], rows=[1], seconds=0.1)
    assert {one.rank for one in fine.times} == {None, *range(32, 512, 32)}
    # 8 rounds of 1 ms: 12 options fit 0.1 s; a step of 64 has 1 + 3 + 7, one of 32 has 1 + 7 + 15.
    assert {one.rank for one in coarse.times} == {None, *range(64, 512, 64)}


def test_no_time_takes_the_coarsest_grid_and_ends(fake, monkeypatch):
    costs(monkeypatch, 0.001)
    found = layer_times([(4096, 4096)], rows=[1], seconds=0.0)
    assert {one.rank for one in found.times} == {None, *range(512, 4096, 512)}


def test_what_the_store_holds_is_not_measured_again(fake, tmp_path):
    store = tmp_path / "times.json"
    ranks = {(128, 128): [16, 32], (128, 64): [16]}
    first = layer_times([(128, 128)], rows=[1], ranks=ranks, seconds=0.0, store=store)
    fake.clear()
    both = layer_times(SHAPES, rows=[1], ranks=ranks, seconds=0.0, store=store)
    assert {one[:2] for one in fake} == {(128, 64)}
    assert both.of(128, 128, 1) == first.times
    assert LayerTimes.from_json(store.read_text()) == both


def test_a_stored_shape_without_a_rank_that_is_asked_for_is_measured_again(fake, tmp_path):
    store = tmp_path / "times.json"
    layer_times([(128, 64)], rows=[1], ranks={(128, 64): [16]}, seconds=0.0, store=store)
    found = layer_times([(128, 64)], rows=[1], ranks={(128, 64): [16, 24]}, seconds=0.0, store=store)
    assert [one.rank for one in found.times if one.form == "low-rank"] == [16, 24]
    assert LayerTimes.from_json(store.read_text()) == found


def test_an_interrupted_run_keeps_the_shapes_it_had_done(fake, tmp_path):
    store = tmp_path / "times.json"

    def interrupt(what, done, of):
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        layer_times(SHAPES, rows=[1], ranks={one: [16] for one in SHAPES}, seconds=0, store=store, progress=interrupt)
    assert {one.out_features for one in LayerTimes.from_json(store.read_text()).times} == {128}


@pytest.mark.parametrize("change", [{"fingerprint": "0" * 16}, {"dtype": "float16"}, {"version": "0.0.1"}])
def test_times_of_another_machine_dtype_or_version_are_replaced(fake, tmp_path, change):
    store = tmp_path / "times.json"
    ranks = {(128, 64): [16]}
    found = layer_times([(128, 64)], rows=[1], ranks=ranks, seconds=0.0)
    store.write_text(replace(found, **change, times=(replace(found.times[0], time_ns=1.0),)).to_json())
    assert layer_times([(128, 64)], rows=[1], ranks=ranks, seconds=0.0, store=store) == found
    assert LayerTimes.from_json(store.read_text()) == found


def test_a_store_that_is_something_else_is_refused(fake, tmp_path):
    store = tmp_path / "times.json"
    store.write_text('{"schema": 1}')
    with pytest.raises(FileError, match=r"times\.json is not a valid narrows layertimes"):
        layer_times([(128, 64)], rows=[1], store=store)
    assert store.read_text() == '{"schema": 1}'


def test_wrong_arguments_are_named_with_their_values(fake):
    with pytest.raises(InputError, match="dtype='int8' is not known"):
        layer_times([(8, 8)], rows=[1], dtype="int8")
    with pytest.raises(InputError, match=r"shapes=\[\] and rows=\[1\]: give at least one of each"):
        layer_times([], rows=[1])
    with pytest.raises(InputError, match=r"shapes=\[\(8, 8\)\] and rows=\[0\]"):
        layer_times([(8, 8)], rows=[0])
    with pytest.raises(InputError, match=r"ranks has no entry for \(D, E\) = \(8, 8\); it has \(8, 4\)"):
        layer_times([(8, 8)], rows=[1], ranks={(8, 4): [2]})


def record(*times):
    return LayerTimes(times, "float32", "cpu", "f" * 16, "a CPU", "0.1.0")


def test_an_unmeasured_time_is_an_error_that_names_the_measured_ones():
    found = record(LayerTime(8, 4, "dense", None, 16, 100.0), LayerTime(8, 4, "pivot", 2, 16, 50.0, 2.0, 1.9, 2.1))
    assert found.at(8, 4, rows=16, form="pivot", rank=2).time_ns == 50.0
    with pytest.raises(InputError, match=r"pivot at rank 3 of D=8, E=4 was not measured at 16 rows; .* were: 2\."):
        found.at(8, 4, rows=16, form="pivot", rank=3)
    with pytest.raises(InputError, match=r"dense of D=8, E=4 was not measured at 32 rows; .*: \(8, 4, 16\)\."):
        found.at(8, 4, rows=32)


def test_several_workloads_are_weighted_and_faster_only_if_they_are_together():
    found = record(
        LayerTime(8, 4, "dense", None, 16, 1000.0),
        LayerTime(8, 4, "pivot", 2, 16, 500.0, 2.0, 1.9, 2.1),
        LayerTime(8, 4, "dense", None, 1, 100.0),
        LayerTime(8, 4, "pivot", 2, 1, 200.0, 0.5, 0.4, 0.6),
    )
    mostly_prefill = [Workload("prefill", 16, weight=1.0), Workload("decode", 99, weight=3.0)]
    time, is_faster = found.weighted(8, 4, workloads=mostly_prefill, form="pivot", rank=2)
    assert time == pytest.approx(0.25 * 500 + 0.75 * 200)
    assert not is_faster  # 325 against 0.25 * 1000 / 1.9 + 0.75 * 100 / 0.4 = 319.1: within 2 %
    assert found.weighted(8, 4, workloads=mostly_prefill[:1], form="pivot", rank=2) == (500.0, True)
    assert found.weighted(8, 4, workloads=mostly_prefill) == (pytest.approx(325.0), False)


def test_times_survive_json_and_a_foreign_field_does_not():
    found = record(LayerTime(8, 4, "pivot", 2, 16, 50.0, 2.0, 1.9, math.inf, ("a doubt",)))
    assert LayerTimes.from_json(found.to_json()) == found
    changed = json.loads(found.to_json()) | {"schema": 1, "colour": "blue"}
    del changed["sha256"]
    with pytest.raises(FileError, match="colour"):
        LayerTimes.from_json(json.dumps(changed), source="f.json")


def small_forms(cold_bytes=4096, dtype=torch.float32):
    return Forms(cold_bytes=cold_bytes, largest=48 * 40, dtype=dtype, device=torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("form", "rank"), [("dense", None), ("low-rank", 8), ("pivot", 8), ("pivot", 40)])
def test_every_form_computes_what_its_weights_stand_for(dtype, form, rank):
    forms = small_forms(dtype=dtype)
    x = forms.inputs(5, 48)
    with torch.inference_mode():
        assert forms.timer(x, 40, form, rank).output().shape == (5, 40)  # it checks its result


@pytest.mark.parametrize(("form", "rank"), [("dense", None), ("low-rank", 8), ("pivot", 8)])
def test_a_wrong_result_has_no_time(form, rank, monkeypatch):
    def spoiled(x, form, weights, place):
        return lambda: call(x, form, weights, place)().index_fill(1, torch.tensor([3]), 0.5)

    monkeypatch.setattr(_layers_calls, "call", spoiled)
    forms = small_forms()
    with torch.inference_mode(), pytest.raises(ImplementationError, match=f"the {form} form .* gives a wrong result"):
        forms.timer(forms.inputs(5, 48), 40, form, rank)


def test_a_pivot_result_in_another_order_is_wrong():
    weights = (torch.randn(8, 48), torch.randn(32, 8))
    x, place = torch.randn(5, 48), torch.randperm(40)
    check(x, "pivot", weights, place, call(x, "pivot", weights, place)())
    with pytest.raises(ImplementationError, match=r"weights \(8, 48\) and \(32, 8\)"):
        check(x, "pivot", weights, place, call(x, "pivot", weights, place.flip(0))())


@pytest.mark.parametrize(("form", "rank"), [("dense", None), ("low-rank", 8), ("pivot", 8)])
def test_the_weights_of_successive_calls_lie_apart_and_exceed_the_cache(form, rank):
    forms = small_forms(cold_bytes=40_000)
    places = forms._places(weight_shapes(48, 40, form, rank))
    spans = [(w.data_ptr(), w.data_ptr() + w.nbytes) for weights in places for w in weights]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert sum(end - start for start, end in spans) + 256 * len(spans) >= 40_000


def test_calls_take_their_turns_and_no_result_is_kept():
    order = []
    ring = _layers_calls._Dropping([lambda i=i: order.append(i) for i in range(3)])
    ring.run(4)
    ring.turn()
    ring.run(2)
    assert order == [0, 1, 2, 0, 1, 2, 0]
    assert ring.results == [None, None, None]


def test_weights_that_do_not_fit_are_refused_before_anything_is_timed(monkeypatch):
    monkeypatch.setattr(_layers_run, "available_bytes", lambda _: 1_000_000)
    with pytest.raises(ResourceError, match=r"measuring layers on cpu needs [0-9]+ MB .* but 1 MB are free"):
        layer_times([(8, 8)], rows=[1])


def test_a_real_run_measures_both_forms_beside_dense(monkeypatch):
    monkeypatch.setattr(_layers_run, "COLD_SETS", 1)
    found = layer_times([(64, 32)], rows=[3], ranks={(64, 32): [8]}, seconds=0.0)
    assert [(one.form, one.rank) for one in found.times] == [("dense", None), ("low-rank", 8), ("pivot", 8)]
    assert all(one.time_ns > 0 and one.speedup_low <= one.speedup <= one.speedup_high for one in found.times)
    assert found.times[0].speedup == 1.0
    assert found.fingerprint == _layers.machine("cpu").fingerprint
