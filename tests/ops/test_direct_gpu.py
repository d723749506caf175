"""On a device: calls that cuBLAS runs have the operation's bits, and are made anew where something changes."""

from __future__ import annotations

import threading

import pytest
import torch

import narrows
from narrows import Factors
from narrows.kernels import tuned
from narrows.kernels.tuned._signature import cublas
from narrows.ops import _bilinear_choice, _linear_choice, _ready
from ops.ready_calls import CALLS, LongWayError, forbid_the_long_way, num_ready
from ops.ready_calls import normal as any_normal

pytestmark = pytest.mark.gpu

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
D = 256


def normal(*shape, seed=0, dtype=torch.bfloat16):
    return any_normal(*shape, seed=seed, dtype=dtype, device="cuda") / shape[-1] ** 0.25


@pytest.fixture(autouse=True)
def _cublas_is_chosen(monkeypatch):
    """Let "auto" choose cuBLAS, and nothing be ready."""
    monkeypatch.setattr(_ready, "_ready", {})
    monkeypatch.setattr(_ready, "_seen", {})
    for module in (_bilinear_choice, _linear_choice):
        monkeypatch.setattr(module, "implementation", cublas)
    yield
    tuned.forget()


def factors_of(dtype, *, seed=1, rank=64):
    return Factors(normal(rank, D, seed=seed, dtype=dtype), normal(rank, D, seed=seed + 1, dtype=dtype))


def bilinear_op(x, factors, y=None, *, scale=None, softcap=None, mask=None, causal=False):
    return torch.ops.narrows.bilinear(x, factors.a, factors.b, y, scale, softcap, mask, causal, "auto")


def linear_op(x, factors, bias=None, *, activation=None, residual=None, middle_bias=None):
    return torch.ops.narrows.linear(x, factors.a, factors.b, bias, middle_bias, residual, activation, "auto")


def agree(call, operation, make, monkeypatch):
    """`make` returns positional and named arguments from a seed."""
    for seed in range(2):
        positional, named = make(seed)
        assert torch.equal(call(*positional, **named), operation(*positional, **named))
    expected = []
    for seed in range(2, 2 + CALLS):
        positional, named = make(seed)
        expected.append(operation(*positional, **named))
    with monkeypatch.context() as patch:
        forbid_the_long_way(patch)
        for seed, wanted in enumerate(expected, start=2):
            positional, named = make(seed)
            got = call(*positional, **named)
            assert torch.equal(got, wanted)
            assert got.is_contiguous()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", ["alternating", "separate"])
@pytest.mark.parametrize("tokens", [1, 64, 1000, 4096])
def test_bilinear(rows, tokens, dtype, monkeypatch):
    plain = factors_of(dtype)
    factors = plain.interleaved() if rows == "alternating" else plain
    agree(narrows.bilinear, bilinear_op, lambda s: ((normal(tokens, D, seed=s, dtype=dtype), factors), {}), monkeypatch)


@pytest.mark.parametrize("form", ["y", "batch", "scale", "causal", "bool mask", "float mask"])
def test_other_forms_of_bilinear(form, monkeypatch):
    factors = factors_of(torch.bfloat16).interleaved()

    def make(seed):
        x = normal(*((2, 96, D) if form == "batch" else (96, D)), seed=seed)
        mask = normal(96, 96, seed=seed + 50)
        options = {
            "scale": {"scale": 0.125},
            "causal": {"causal": True, "softcap": 5.0},
            "bool mask": {"mask": mask > 0},
            "float mask": {"mask": mask},
        }.get(form, {})
        return (x, factors, *((normal(80, D, seed=seed + 90),) if form == "y" else ())), options

    agree(narrows.bilinear, bilinear_op, make, monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", ["plain", "bias", "batch", "all"])
@pytest.mark.parametrize("tokens", [1, 64, 1000])
def test_linear(form, tokens, dtype, monkeypatch):
    up = normal(384, 64, seed=2, dtype=dtype)  # as nn.Linear holds it
    factors = Factors(normal(64, D, seed=1, dtype=dtype), up.mT)
    bias, middle = normal(384, seed=3, dtype=dtype), normal(64, seed=4, dtype=dtype)

    def make(seed):
        lead = (2, tokens) if form == "batch" else (tokens,)
        x = normal(*lead, D, seed=10 + seed, dtype=dtype)
        residual = normal(*lead, 384, seed=70 + seed, dtype=dtype)
        options = {"all": {"activation": "silu", "residual": residual, "middle_bias": middle}}.get(form, {})
        return (x, factors, *(() if form == "plain" else (bias,))), options

    agree(narrows.linear, linear_op, make, monkeypatch)


def test_what_torch_is_told_about_tf32_is_asked_in_every_call():
    x, factors = normal(512, D, dtype=torch.float32), factors_of(torch.float32).interleaved()
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        results = []
        for allowed in (False, True, False):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            for _ in range(CALLS):
                result = narrows.bilinear(x, factors)
                assert torch.equal(result, bilinear_op(x, factors))
            results.append(result)
        assert torch.equal(results[0], results[2])
        assert not torch.equal(results[0], results[1])
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_each_stream_computes_its_own():
    factors = factors_of(torch.bfloat16).interleaved()
    xs = [normal(512, D, seed=20 + i) for i in range(4)]
    expected = [bilinear_op(x, factors) for x in xs]
    torch.cuda.synchronize()
    wrong = []

    def work(i, stream):
        with torch.cuda.stream(stream):
            wrong.extend(i for _ in range(100) if not torch.equal(narrows.bilinear(xs[i], factors), expected[i]))

    shared = torch.cuda.Stream()
    streams = [shared, shared, torch.cuda.Stream(), torch.cuda.Stream()]
    threads = [threading.Thread(target=work, args=(i, stream)) for i, stream in enumerate(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert num_ready() >= 1


def test_a_new_choice_takes_over_when_the_old_ones_are_forgotten(monkeypatch):
    x, factors = normal(512, D), factors_of(torch.bfloat16).interleaved()
    for _ in range(CALLS):
        narrows.bilinear(x, factors)
    monkeypatch.setattr(_bilinear_choice, "implementation", lambda _: "triton")
    with monkeypatch.context() as patch:
        forbid_the_long_way(patch)
        narrows.bilinear(x, factors)  # what is ready does not ask
        tuned.forget()
        with pytest.raises(LongWayError):
            narrows.bilinear(x, factors)
    own = torch.ops.narrows.bilinear(x, factors.a, factors.b, None, None, None, None, False, "triton")
    for _ in range(CALLS):
        assert torch.equal(narrows.bilinear(x, factors), own)


def test_a_captured_call_is_the_operation():
    x, factors = normal(512, D), factors_of(torch.bfloat16).interleaved()
    for _ in range(CALLS):
        narrows.bilinear(x, factors)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), pytest.MonkeyPatch.context() as patch:
        seen = []
        operation = torch.ops.narrows.bilinear.default
        patch.setattr("narrows.ops._bilinear.bilinear_op", lambda *a: seen.append(1) or operation(*a))
        out = narrows.bilinear(x, factors)
    assert seen == [1]
    x.copy_(normal(512, D, seed=9))
    graph.replay()
    assert torch.equal(out, bilinear_op(x, factors))


def test_memory_of_freed_factors_is_given_back():
    x, held = normal(64, 4096), []
    for seed in range(3):
        rows = normal(256, 2, 4096, seed=seed)
        factors = Factors(rows[:, 0], rows[:, 1])
        for _ in range(CALLS):
            narrows.bilinear(x, factors)
            narrows.linear(x, factors)
        del rows, factors
        torch.cuda.synchronize()
        held.append(torch.cuda.memory_allocated())
    assert held[0] == held[1] == held[2]
