"""Calls that are replayed are the calls that were made: same bits, on other data, streams and threads."""

from __future__ import annotations

import threading

import pytest
import torch

import narrows
from narrows import Factors
from narrows.ops import _ready

pytestmark = pytest.mark.gpu


def normal(*shape, seed=0, dtype=torch.bfloat16):
    generator = torch.Generator("cuda").manual_seed(seed)
    return (torch.randn(*shape, generator=generator, device="cuda") / shape[-1] ** 0.25).to(dtype)


@pytest.fixture
def factors():
    return Factors(normal(64, 512, seed=1), normal(64, 512, seed=2)).interleaved()


def slow(x, factors, y=None):
    """The same operation through the dispatcher, which replays nothing."""
    return torch.ops.narrows.bilinear(x, factors.a, factors.b, y, None, None, None, False, "triton")


def fast(x, factors, y=None):
    return narrows.bilinear(x, factors, y, impl="triton")


def test_the_third_call_is_a_replay_and_every_call_has_the_same_bits_on_its_own_data(factors):
    before = len(_ready._replays)
    for seed in range(6):
        x = normal(96, 512, seed=10 + seed)
        assert torch.equal(fast(x, factors), slow(x, factors))
    assert sum(replay is not None for replay in list(_ready._replays.values())[before:]) == 1


def test_another_rank_length_or_stride_is_another_call(factors):
    wide = normal(96, 1024)
    for _ in range(4):
        for x in (normal(96, 512), normal(80, 512), wide[:, :512]):
            for rank in (64, 32):
                small = factors.truncate(rank)
                assert torch.equal(fast(x, small), slow(x, small))


def test_an_address_that_16_does_not_divide_is_run_the_long_way(factors):
    flat = normal(97 * 512 + 8)
    for _ in range(4):
        for start in (0, 1):
            x = flat[start : start + 96 * 512].view(96, 512)
            assert torch.equal(fast(x, factors), slow(x, factors))


def test_y_that_was_x_once_may_be_another_tensor_later(factors):
    x, y = normal(96, 512), normal(96, 512, seed=5)
    for _ in range(4):
        assert torch.equal(fast(x, factors, x), slow(x, factors, x))
    for _ in range(4):
        assert torch.equal(fast(x, factors, y), slow(x, factors, y))


def test_streams_and_threads_do_not_disturb_each_other(factors):
    xs = [normal(96, 512, seed=20 + i) for i in range(4)]
    expected = [slow(x, factors) for x in xs]
    torch.cuda.synchronize()
    wrong = []

    def work(i, stream):
        with torch.cuda.stream(stream):
            wrong.extend(i for _ in range(200) if not torch.equal(fast(xs[i], factors), expected[i]))

    shared = torch.cuda.Stream()
    streams = [shared, shared, torch.cuda.Stream(), torch.cuda.Stream()]
    threads = [threading.Thread(target=work, args=(i, stream)) for i, stream in enumerate(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_watches_operations_still_sees_them(factors):
    from torch.utils.flop_counter import FlopCounterMode

    x = normal(96, 512)
    for _ in range(4):
        fast(x, factors)
    with FlopCounterMode(display=False) as counter:
        fast(x, factors)
    assert counter.get_total_flops() == 2 * 96 * 512 * 64 * 2 + 2 * 96 * 96 * 64
    x.requires_grad_()
    fast(x, factors).float().sum().backward()
    assert x.grad is not None
    with torch.autocast("cuda", dtype=torch.float16):
        assert fast(x, factors).dtype == torch.float16


def test_a_captured_call_is_no_replay(factors):
    x = normal(96, 512)
    for _ in range(4):
        fast(x, factors)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = fast(x, factors)
    x.copy_(normal(96, 512, seed=9))
    graph.replay()
    assert torch.equal(out, slow(x, factors))


def test_linear_is_replayed_too():
    factors, bias = Factors(normal(32, 512, seed=1), normal(32, 384, seed=2)), normal(384)
    for seed in range(5):
        x = normal(16, 512, seed=seed)
        residual = normal(16, 384, seed=50 + seed)
        mine = narrows.linear(x, factors, bias, activation="silu", residual=residual, impl="triton")
        whole = torch.ops.narrows.linear(x, factors.a, factors.b, bias, None, residual, "silu", "triton")
        assert torch.equal(mine, whole)
