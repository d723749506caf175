"""Ceilings and probes: the arithmetic on a clock made here, and one short true measurement."""

from __future__ import annotations

import math

import pytest
import torch

from narrows._machine import _ceilings, ceilings, probe_dtypes
from narrows._machine._matmul import best_matmul, flops
from narrows._machine._probe import FAST
from narrows._machine._stopwatch import Stopwatch, Work, stopwatch
from narrows.errors import DeviceError, InputError, ResourceError


def fake(times: dict[str, list[float]], threads: tuple[int, ...] = (1,)) -> Stopwatch:
    """A stopwatch whose samples are given: each call is a name, the last time repeats."""

    def sampler(call):
        left = list(times[call()])
        return lambda: left.pop(0) if len(left) > 1 else left[0]

    return Stopwatch("cpu", sampler, threads)


def test_the_best_rate_takes_the_smallest_time_of_the_best_work():
    # The first sample of each is the warm-up: its 1 ns must not count.
    clock = fake({"slow": [1.0, 500.0, 400.0], "fast": [1.0, 300.0, 100.0]})
    rate = clock.best([Work(lambda: "slow", 1000), Work(lambda: "fast", 1000)], seconds=0.01)
    assert rate == (1000 * 1e9 / 100.0, 1)


def test_a_launch_is_subtracted_but_at_most_half_of_a_time():
    clock = fake({"a": [100.0]})
    assert clock.best([Work(lambda: "a", 1)], seconds=0, overhead_ns=20).per_s == pytest.approx(1e9 / 80)
    assert clock.best([Work(lambda: "a", 1)], seconds=0, overhead_ns=99).per_s == pytest.approx(1e9 / 50)


def test_the_number_of_threads_is_what_it_was_afterwards_even_when_a_call_fails():
    before = torch.get_num_threads()
    seen = []
    Stopwatch("cpu", lambda _: lambda: seen.append(torch.get_num_threads()) or 1.0, (1, before + 1)).best(
        [Work(lambda: None, 1)], seconds=0
    )
    assert set(seen) == {1, before + 1}
    with pytest.raises(ZeroDivisionError):
        Stopwatch("cpu", lambda _: lambda: 1 / 0, (before + 1,)).best([Work(lambda: None, 1)], seconds=0)
    assert torch.get_num_threads() == before


def test_an_emulated_dtype_stops_growing_its_shapes_when_the_time_is_over():
    """At 1 GFLOP/s, 1024^3 takes 2.1 s: it must not run in a budget of 0.4 s."""
    ran = []

    def sampler(call):
        shape = call.__closure__[0].cell_contents.shape  # the output
        size = next(f for f in (256, 512, 1024, 2048, 4096) if f >= shape[0])
        ran.append(size)
        return lambda: 2 * size**3 * 1.0

    rate = best_matmul(Stopwatch("cpu", sampler, (1,)), torch.float32, seconds=0.4)
    assert rate.flops_per_s == pytest.approx(1e9)
    assert max(ran) == 256


def test_ceilings_are_positive_and_cached_ones_are_not_below_memorys():
    found = ceilings("cpu", "fp32", seconds=0.3)
    assert found.dtype == "float32"
    rates = (found.read_bytes_per_s, found.write_bytes_per_s, found.copy_bytes_per_s, found.flops_per_s)
    assert all(0 < rate < math.inf for rate in rates)
    assert found.hot_read_bytes_per_s >= found.read_bytes_per_s
    assert found.hot_write_bytes_per_s >= found.write_bytes_per_s
    assert 0 < found.eager_launch_ns < 1e6
    assert found.graph_launch_ns == 0
    assert flops(found.flops_shape) > 0


def test_a_matmul_does_not_exceed_its_ceiling_by_much():
    """The canary of the ceiling: a plain matmul, timed here, is not twice as fast as it."""
    clock = stopwatch("cpu")
    ceiling = best_matmul(clock, torch.float32, seconds=0.3).flops_per_s
    x, w = torch.randn(512, 512), torch.randn(512, 512)
    plain = clock.best([Work(lambda: torch.mm(x, w), flops((512, 512, 512)))], seconds=0.05)
    assert plain.per_s < 2 * ceiling


def test_probes_are_relative_to_float32_and_say_what_is_fast():
    probes = {probe.dtype: probe for probe in probe_dtypes("cpu", seconds=0.02)}
    assert list(probes) == ["float32", "bfloat16", "float16", "float64"]
    assert probes["float32"].ratio == 1.0
    assert all(probe.is_fast == (probe.ratio >= FAST) for probe in probes.values())


def test_bad_arguments_of_ceilings_are_named():
    with pytest.raises(InputError, match=r"dtype=int8 is not supported"):
        ceilings("cpu", torch.int8)
    with pytest.raises(InputError, match=r"seconds=0 must be > 0"):
        ceilings("cpu", seconds=0)
    with pytest.raises(DeviceError, match="device='tpu' is not known"):
        ceilings("tpu")


def test_too_little_memory_for_the_buffers_is_told_before_any_is_taken(monkeypatch):
    monkeypatch.setattr(_ceilings, "available_bytes", lambda _: 50_000_000)
    with pytest.raises(ResourceError, match=r"two buffers of \d+ MB .* but 50 MB are free"):
        ceilings("cpu", seconds=0.1)


@pytest.mark.gpu
def test_ceilings_of_a_gpu_have_launches_in_and_out_of_a_graph():
    found = ceilings("cuda", "bf16", seconds=1.0)
    assert 0 < found.graph_launch_ns < found.eager_launch_ns
    assert found.hot_read_bytes_per_s >= found.read_bytes_per_s > 1e11
    assert found.flops_per_s > 1e12
