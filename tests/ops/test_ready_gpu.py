"""Calls that are replayed are the calls that were made: same bits, on other data, streams and threads."""

from __future__ import annotations

import threading

import pytest
import torch

import narrows
from narrows import Factors
from narrows.kernels.triton._replay import Replay
from narrows.ops import _ready
from ops.ready_calls import LongWayError, forbid_the_long_way

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _nothing_is_ready(monkeypatch):
    monkeypatch.setattr(_ready, "_ready", {})
    monkeypatch.setattr(_ready, "_seen", {})


def num_replays():
    return sum(isinstance(ready.run, Replay) for found in _ready._ready.values() for ready in found)


def normal(*shape, seed=0, dtype=torch.bfloat16):
    generator = torch.Generator("cuda").manual_seed(seed)
    return (torch.randn(*shape, generator=generator, device="cuda") / shape[-1] ** 0.25).to(dtype)


@pytest.fixture
def factors():
    return Factors(normal(64, 512, seed=1), normal(64, 512, seed=2)).interleaved()


def slow(x, factors, y=None, mask=None):
    """The same operation through the dispatcher, which replays nothing."""
    return torch.ops.narrows.bilinear(x, factors.a, factors.b, y, None, None, mask, False, "triton")


def fast(x, factors, y=None, mask=None):
    return narrows.bilinear(x, factors, y, mask=mask, impl="triton")


def test_the_third_call_is_a_replay_and_every_call_has_the_same_bits_on_its_own_data(factors):
    for seed in range(6):
        x = normal(96, 512, seed=10 + seed)
        assert torch.equal(fast(x, factors), slow(x, factors))
    assert num_replays() == 1


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


def test_factors_that_lie_apart_share_a_replay_and_alternating_rows_have_their_own(factors, monkeypatch):
    # Slices of a longer tensor: tensors that touch count as tied, and the allocator may put them so.
    layers = [Factors(normal(72, 512, seed=10 * i)[:64], normal(72, 512, seed=10 * i + 1)[:64]) for i in range(4)]
    x = normal(96, 512)
    for _ in range(3):
        fast(x, layers[0])
        fast(x, factors)
    assert num_replays() == 2
    expected = [slow(x, layer) for layer in (*layers, factors)]
    forbid_the_long_way(monkeypatch)
    for layer, wanted in zip((*layers, factors), expected, strict=True):
        assert torch.equal(fast(x, layer), wanted)


@pytest.mark.parametrize("kind", ["bool", "float", "row"])
def test_a_mask_is_an_operand_like_others(factors, kind):
    for seed in range(5):
        x, mask = normal(96, 512, seed=seed), normal(*((1, 96) if kind == "row" else (96, 96)), seed=40 + seed)
        mask = mask > 0 if kind == "bool" else mask
        assert torch.equal(fast(x, factors, mask=mask), slow(x, factors, mask=mask))


def test_what_a_guard_must_see_it_sees_on_a_device(factors, monkeypatch):
    """Every state in which a call is more than its launches, each on its own."""
    from torch.autograd import forward_ad
    from torch.utils.flop_counter import FlopCounterMode

    x = normal(96, 512)
    for _ in range(4):
        fast(x, factors)
    forbid_the_long_way(monkeypatch)
    fast(x, factors)
    parameter = torch.nn.Parameter(x.clone())
    for context in (
        lambda: torch.autocast("cuda", dtype=torch.float16),
        lambda: FlopCounterMode(display=False),
        forward_ad.dual_level,
        torch.inference_mode,  # made ready on its own
    ):
        with context(), pytest.raises(LongWayError):
            fast(x, factors)
    for other in (parameter, x.clone().requires_grad_(), torch._neg_view(x), normal(96, 512, dtype=torch.float16)):
        with pytest.raises(LongWayError):
            fast(other, factors if other.dtype == x.dtype else factors.to(other.dtype).interleaved())
    with pytest.raises(LongWayError):
        torch.vmap(lambda t: fast(x, factors) + t)(torch.zeros(2, 1, 1, device="cuda"))
    fast(x, factors)


def test_parameters_are_replayed_without_gradients_and_differentiated_with_them(factors):
    a, b = (torch.nn.Parameter(t.clone()) for t in (factors.a, factors.b))
    x = normal(96, 512)
    for _ in range(4):
        with torch.no_grad():
            assert torch.equal(fast(x, Factors(a, b)), slow(x, Factors(a, b)))
        assert fast(x, Factors(a, b)).requires_grad
    assert num_replays() == 1
