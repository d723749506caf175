"""Own linear kernels on a GPU: dtypes, sizes, graphs, streams, compiled code, repeats."""

from __future__ import annotations

import pytest
import torch

import narrows
from kernels.triton.linear_chain import (
    ACTIVATIONS,
    CONFIGS,
    ON_LOAD,
    SPLIT,
    Sized,
    as_child,
    assert_right,
    finished,
    finished_gated,
    integers,
    make,
    pair,
)
from narrows import Factors, stack
from narrows.kernels import LinearEpilogue
from narrows.kernels._config import Config, Tiles
from narrows.kernels.triton import _linear
from narrows.kernels.triton._launch import Launch
from narrows.kernels.triton._linear import LinearTriton
from narrows.testing import check_kernel

pytestmark = pytest.mark.gpu

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
TOKENS = [1, 16, 63, 64, 1000]
WIDE = Config(Tiles(64, 64, 64, split=4), Tiles(64, 64, 64))
OVERLAPS = {name: Config(WIDE.project, WIDE.second, overlap=name) for name in ("none", "last", "all", "early")}


@pytest.mark.parametrize("config", [*CONFIGS.values(), WIDE])
def test_they_pass_the_conformance_check(config):
    check_kernel(Sized(config), dtypes=DTYPES, device="cuda")


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [lambda f: f, as_child], ids=["(R, E)", "view of (E, R)"])
def test_the_tuned_sizes_are_within_the_bound_with_a_full_epilogue(tokens, dtype, layout):
    x, factors = make(tokens, 512, dtype=dtype), pair(64, 512, 640, dtype)
    epilogue = LinearEpilogue(
        make(640, dtype=dtype), make(64, dtype=dtype), make(tokens, 640, dtype=dtype, seed=1), "silu"
    )
    y = narrows.linear(
        x,
        layout(factors),
        epilogue.bias,
        activation="silu",
        residual=epilogue.residual,
        middle_bias=epilogue.middle_bias,
        impl="triton",
    )
    assert_right(y, finished(x, factors, epilogue))


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_overlapping_launches_change_no_bit(overlap, activation):
    x, factors = make(300, 512, dtype=torch.bfloat16), pair(64, 512, 640, torch.bfloat16)
    epilogue = LinearEpilogue(activation=activation)
    alone = LinearTriton().run_with(OVERLAPS["none"], x, factors, epilogue=epilogue)
    for _ in range(20):
        assert torch.equal(LinearTriton().run_with(OVERLAPS[overlap], x, factors, epilogue=epilogue), alone)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("is_stacked", [True, False])
def test_groups_and_gated_pairs_are_within_the_bound(tokens, dtype, is_stacked):
    x = make(tokens, 512, dtype=dtype) / 16  # a product of two results near 180 would leave float16
    factors = [pair(rank, 512, columns, dtype, seed=rank) for rank, columns in ((64, 512), (48, 128), (33, 100))]
    given = stack(factors) if is_stacked else factors
    biases = [make(512, dtype=dtype), None, make(100, dtype=dtype)]
    for y, member, bias in zip(narrows.linear_group(x, given, biases, impl="triton"), factors, biases, strict=True):
        assert_right(y, finished(x, member, LinearEpilogue(bias)))
    gate, up = factors[0], pair(64, 512, 512, dtype, seed=9)
    y = narrows.gated_linear(x, *(stack((gate, up)) if is_stacked else (gate, up)), impl="triton")
    assert_right(y, finished_gated(x, gate, up, (None, None), "silu"))


@pytest.mark.parametrize("config", [SPLIT, ON_LOAD, WIDE])
def test_exact_integers_come_out_exactly_in_bfloat16(config):
    x, factors = (
        integers(63, 40, dtype=torch.bfloat16),
        Factors(integers(5, 40, dtype=torch.bfloat16), integers(5, 100, dtype=torch.bfloat16, seed=1)),
    )
    exact = (x.double() @ factors.a.double().mT) @ factors.b.double()
    assert exact.abs().max() <= 256
    assert torch.equal(LinearTriton().run_with(config, x, factors).double(), exact)
    gated = LinearTriton().run_gated_with(config, x, factors, factors, activation=None)
    assert torch.equal(gated.double(), (exact * exact).bfloat16().double())


def test_a_thousand_repeats_give_the_same_bits():
    x, factors = make(256, 1024, dtype=torch.bfloat16), pair(64, 1024, 1024, torch.bfloat16)
    for config in (OVERLAPS["all"], Config(WIDE.project, WIDE.second, overlap="all", reduce="load")):
        kernel, first = LinearTriton(), LinearTriton().run_with(config, x, factors)
        for _ in range(1000):
            assert torch.equal(kernel.run_with(config, x, factors), first)


def forms(x, factors):
    """Return every form's results as one list."""
    return [
        narrows.linear(x, factors, residual=x, activation="gelu", impl="triton"),
        *narrows.linear_group(x, stack((factors, factors)), impl="triton"),
        narrows.gated_linear(x, factors, factors, impl="triton"),
    ]


def test_a_graph_replays_on_new_data():
    factors = pair(64, 512, 512, torch.bfloat16)
    x = make(64, 512, dtype=torch.bfloat16)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        forms(x, factors)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = forms(x, factors)
    x.copy_(make(64, 512, dtype=torch.bfloat16, seed=5))
    for result in captured:
        result.fill_(float("nan"))
    graph.replay()
    for result, eager in zip(captured, forms(x, factors), strict=True):
        assert torch.equal(result, eager)


def test_one_eager_call_prepares_the_captured_one(monkeypatch):
    kernel, factors, x = LinearTriton(), pair(64, 512, 512, torch.bfloat16), make(64, 512, dtype=torch.bfloat16)
    eager = kernel.run(x, factors, activation="gelu_tanh")
    torch.cuda.synchronize()
    monkeypatch.setattr(_linear, "make_plan", None)
    monkeypatch.setattr(Launch, "_first", None)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = kernel.run(x, factors, activation="gelu_tanh")
    graph.replay()
    assert torch.equal(captured, eager)


def test_a_stream_of_its_own_is_respected():
    factors = pair(64, 512, 512, torch.bfloat16)
    x = make(1000, 512, dtype=torch.bfloat16)
    expected = forms(x, factors)
    late = torch.zeros_like(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        late.copy_(x)
        results = forms(late, factors)
    stream.synchronize()
    for result, eager in zip(results, expected, strict=True):
        assert torch.equal(result, eager)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own import
def test_compiled_code_runs_the_same_kernels():
    torch._dynamo.reset()
    factors = pair(64, 512, 512, torch.bfloat16)
    compiled = torch.compile(forms, fullgraph=True)
    for tokens in (16, 64, 100):
        x = make(tokens, 512, dtype=torch.bfloat16)
        for result, eager in zip(compiled(x, factors), forms(x, factors), strict=True):
            assert torch.equal(result, eager)


def test_addresses_that_16_does_not_divide_are_read_rightly():
    whole, factors = make(65, 513, dtype=torch.bfloat16), pair(64, 512, 512, torch.bfloat16)
    kernel = LinearTriton()
    kernel.run_with(WIDE, whole[:64, :512].contiguous(), factors)
    x = whole.view(-1)[1 : 1 + 64 * 512].view(64, 512)
    assert_right(kernel.run_with(WIDE, x, factors), finished(x, factors, LinearEpilogue()))


def test_auto_gives_a_right_result_on_a_gpu():
    for tokens in TOKENS:
        x, factors = make(tokens, 512, dtype=torch.bfloat16), pair(64, 512, 640, torch.bfloat16)
        assert_right(narrows.linear(x, factors), finished(x, factors, LinearEpilogue()))


def test_gradients_are_those_of_two_matmuls():
    x, factors = make(64, 128).double().float().requires_grad_(), pair(16, 128, 96)
    weights = make(64, 96)
    grads = []
    for impl in ("triton", "two"):
        y = narrows.linear(x, factors, activation="silu", impl=impl)
        grads.append(torch.autograd.grad((y * weights).sum(), x)[0])
    assert torch.equal(*grads)


def test_peak_memory_is_the_result_the_projection_and_its_parts():
    x, factors = make(1000, 512, dtype=torch.bfloat16), pair(64, 512, 4096, torch.bfloat16)
    kernel = LinearTriton()
    kernel.run_with(WIDE, x, factors)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = kernel.run_with(WIDE, x, factors)
    taken = torch.cuda.max_memory_allocated() - before
    parts = 4 * 1000 * 64 * 4
    assert y.numel() * 2 <= taken <= y.numel() * 2 + 1000 * 64 * 2 + parts + 3 * 512  # each rounded up to 512 bytes


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "gelu_tanh"])
def test_an_activation_keeps_nan(activation):
    x, factors = make(64, 128, dtype=torch.bfloat16), pair(32, 128, 64, torch.bfloat16)
    x[3] = float("nan")
    y = narrows.linear(x, factors, activation=activation, impl="triton")
    assert bool(y[3].isnan().all())
    assert not bool(y[:3].isnan().any())
