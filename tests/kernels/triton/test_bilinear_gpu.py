"""On a GPU: own bilinear kernels at odd sizes, in all dtypes and layouts, in graphs, streams and compiled code."""

from __future__ import annotations

import pytest
import torch

import narrows
from kernels.triton.scores import LARGE, UNIT, Sized, assert_right, finished, make
from narrows import Factors
from narrows._oracle import emulate, normal_operands, statistics
from narrows.kernels import OWN_BILINEAR, Epilogue, bilinear_signature
from narrows.kernels._config import Config, Tiles
from narrows.kernels.tuned import config as tuned_config
from narrows.kernels.tuned._known import DEFAULTS
from narrows.kernels.tuned._records import Tuning
from narrows.ops import _bilinear_choice
from narrows.testing import bilinear_bound, check_kernel, exact_operands

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
CONFIGS = {
    "whole": LARGE,
    "split": Config(Tiles(64, 64, 64, split=4), Tiles(64, 64, 64)),
    "odd split": Config(Tiles(16, 64, 64, split=13), Tiles(16, 32, 64)),
    "overlap last": Config(Tiles(64, 64, 64, split=4), Tiles(64, 64, 64), overlap="last"),
    "overlap all": Config(Tiles(64, 64, 64, split=4), Tiles(64, 64, 64), overlap="all"),
    "overlap early": Config(Tiles(64, 64, 64, split=4), Tiles(64, 64, 64), overlap="early"),
    "overlap all, no split": Config(Tiles(64, 64, 64), Tiles(128, 128, 64, warps=8), overlap="all"),
}
GUARD = 4096
BILINEAR_TRITON = OWN_BILINEAR["triton"]


def guarded(tensor):
    """Return a copy with NaN before and after it in memory, and the memory."""
    memory = torch.full((tensor.numel() + 2 * GUARD,), torch.nan, dtype=tensor.dtype, device=tensor.device)
    copy = memory[GUARD : GUARD + tensor.numel()].view(tensor.shape)
    copy.copy_(tensor)
    return copy, memory


def is_guard_whole(memory):
    return bool(memory[:GUARD].isnan().all() and memory[-GUARD:].isnan().all())


def operands(tokens, width, rank, dtype, others=None):
    pair = make(rank, 2, width, dtype=dtype) / 8  # scores of float16 stay far below 65504
    return make(tokens, width, dtype=dtype, seed=1), Factors(pair[:, 0], pair[:, 1]), (
        None if others is None else make(others, width, dtype=dtype, seed=2)
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_way_to_launch_passes_the_conformance_check(config, dtype):
    check_kernel(Sized(config), device="cuda", dtypes=[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("tokens", "others"), [(1, None), (63, None), (1000, None), (1009, None), (63, 1009), (1009, 1)]
)
@pytest.mark.parametrize("rank", [16, 33, 64])
def test_odd_sizes_are_right_and_write_nothing_beside_the_result(tokens, others, rank, dtype):
    x, factors, y = operands(tokens, 1009 if rank == 33 else 1024, rank, dtype, others)
    pair, pair_memory = guarded(factors.pair)
    factors = Factors(pair[:, 0], pair[:, 1])
    x, x_memory = guarded(x)
    y, y_memory = (None, x_memory) if y is None else guarded(y)
    out, out_memory = guarded(torch.full((tokens, others or tokens), torch.nan, dtype=dtype, device="cuda"))
    BILINEAR_TRITON.run(x, factors, y, out=out)
    assert_right(out, finished(x, factors.a, factors.b, x if y is None else y))
    assert all(is_guard_whole(memory) for memory in (x_memory, y_memory, pair_memory, out_memory))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tokens", [128, 1000])
def test_errors_are_those_of_rounding_at_the_declared_places(tokens, dtype):
    sizes = {"tokens": tokens, "in_features": 1024, "out_features": 1024, "rank": 16}
    data = normal_operands("bilinear", **sizes, dtype=dtype, device="cuda")
    result = BILINEAR_TRITON.run(data.x, Factors(data.a, data.b), data.y)
    reference = bilinear_bound(data.x, data.a, data.b, data.y)
    assert not statistics(result, reference, emulate(data)).failures


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [63, 1000])
def test_small_integers_are_exact(tokens, dtype):
    sizes = {"tokens": tokens, "in_features": 509, "out_features": 509, "rank": 17}
    data = exact_operands("bilinear", **sizes, dtype=dtype, device="cuda", is_self=True)
    for factors in (Factors(data.a, data.b), Factors(data.a, data.b).interleaved()):
        for config in CONFIGS.values():
            assert torch.equal(BILINEAR_TRITON.run_with(config, data.x, factors), data.expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_epilogues_of_heads_are_right(softcap, dtype):
    x, pair = make(2, 1, 333, 256, dtype=dtype), make(4, 32, 2, 256, dtype=dtype) / 16
    full = Factors(pair[..., 0, :], pair[..., 1, :])
    for factors in (full, full.truncate(24)):
        for mask in (None, make(2, 1, 1, 333) > 0, make(4, 333, 333, dtype=dtype)):
            finish = Epilogue(0.125, softcap, mask, is_causal=True)
            result = BILINEAR_TRITON.run_with(CONFIGS["overlap all"], x, factors, epilogue=finish)
            assert_right(result, finished(x, factors.a, factors.b, x, finish))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_thousand_repeats_have_the_same_bits(config):
    x, factors, _ = operands(1000, 4096, 64, torch.bfloat16)
    first = BILINEAR_TRITON.run_with(config, x, factors)
    out = torch.empty_like(first)
    for _ in range(1000):
        out.fill_(torch.nan)
        assert torch.equal(BILINEAR_TRITON.run_with(config, x, factors, out=out), first)


@pytest.mark.parametrize("overlap", ["none", "last", "all", "early"])
def test_a_graph_replays_on_new_data(overlap):
    config = Config(Tiles(64, 64, 64, split=8), Tiles(64, 64, 64), overlap=overlap)
    x, factors, _ = operands(512, 4096, 64, torch.bfloat16)
    out = BILINEAR_TRITON.run_with(config, x, factors)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(20):
            BILINEAR_TRITON.run_with(config, x, factors, out=out)
    for seed in range(3):
        x.copy_(make(512, 4096, dtype=torch.bfloat16, seed=seed))
        out.fill_(torch.nan)
        graph.replay()
        assert_right(out, finished(x, factors.a, factors.b, x))


def test_the_operation_is_captured_in_a_graph():
    x, factors, _ = operands(256, 1024, 64, torch.bfloat16)
    narrows.bilinear(x, factors, impl="triton")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = narrows.bilinear(x, factors, softcap=30.0, causal=True, impl="triton")
    scores.fill_(torch.nan)
    graph.replay()
    assert_right(scores, finished(x, factors.a, factors.b, x, Epilogue(softcap=30.0, is_causal=True)))


def test_work_goes_to_the_current_stream():
    x, factors, _ = operands(512, 4096, 64, torch.bfloat16)
    expected = narrows.bilinear(x, factors, impl="triton")
    stream, late = torch.cuda.Stream(), torch.full_like(x, torch.nan)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # about 10 ms: long enough for work on another stream to overtake
        late.copy_(x)
        result = narrows.bilinear(late, factors, impl="triton")
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(result, expected)


def test_chains_that_follow_each_other_at_once_do_not_touch_each_other():
    config = CONFIGS["overlap all"]
    calls = [operands(tokens, 2048, 64, torch.bfloat16)[:2] for tokens in (64, 512, 63, 256)]
    expected = [BILINEAR_TRITON.run_with(config, *call) for call in calls]
    torch.cuda.synchronize()
    for _ in range(200):
        results = [BILINEAR_TRITON.run_with(config, *call) for call in calls]
        assert all(torch.equal(mine, first) for mine, first in zip(results, expected, strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")  # torch's own
def test_it_compiles_into_one_graph():
    torch._dynamo.reset()
    _, factors, _ = operands(64, 1024, 64, torch.bfloat16)
    compiled = torch.compile(lambda x: narrows.bilinear(x, factors, causal=True, impl="triton") * 2, fullgraph=True)
    for tokens in (64, 63):
        x = make(tokens, 1024, dtype=torch.bfloat16)
        assert torch.equal(compiled(x), narrows.bilinear(x, factors, causal=True, impl="triton") * 2)
    torch._dynamo.reset()


def test_gradients_are_those_of_the_specification():
    grads = []
    for impl in ("three", "triton"):
        x, pair = make(63, 128).requires_grad_(), make(16, 2, 128).requires_grad_()
        factors = Factors(pair[:, 0], pair[:, 1])
        narrows.bilinear(x, factors, scale=0.05, softcap=3.0, causal=True, impl=impl).softmax(
            -1
        ).square().sum().backward()
        grads += [x.grad, pair.grad]
    for expected, mine in zip(grads[:2], grads[2:], strict=True):
        assert (mine - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_tf32_is_used_only_where_torch_was_asked_for_it():
    x, factors, _ = operands(128, 1024, 64, torch.float32)
    exact = finished(x, factors.a, factors.b, x).value
    errors = []
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        try:
            errors.append(float((BILINEAR_TRITON.run(x, factors).double() - exact).norm() / exact.norm()))
        finally:
            torch.set_float32_matmul_precision("highest")
    assert errors[0] < 8 * UNIT[torch.float32]
    assert errors[1] > 64 * UNIT[torch.float32]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="not shown: one CUDA device")
def test_operands_on_another_device_run_there():
    x, factors, _ = operands(64, 512, 16, torch.bfloat16)
    there, moved = x.to("cuda:1"), factors.interleaved().to("cuda:1")
    result = BILINEAR_TRITON.run(there, moved)
    assert result.device.index == 1
    assert torch.cuda.current_device() == 0
    assert torch.equal(result.to(x.device), BILINEAR_TRITON.run(x, Factors(factors.a.clone(), factors.b.clone())))


@pytest.mark.parametrize("tokens", [64, 128, 256, 512, 1024, 2048, 4096])
@pytest.mark.parametrize("rank", [64, 128, 256])
def test_the_sizes_chosen_for_a_call_give_a_right_result(tokens, rank):
    x, factors, _ = operands(tokens, 4096, rank, torch.bfloat16)
    config = tuned_config("triton", bilinear_signature(x, factors.a, factors.b, None))
    result = BILINEAR_TRITON.run_with(config, x, factors)
    rows = torch.arange(0, tokens, max(1, tokens // 64), device="cuda")
    assert_right(result[rows], finished(x[rows], factors.a, factors.b, x))


SHIPPED = {
    f"{name} T={entry.tokens} D={entry.in_features} R={entry.rank} {entry.dtype} {entry.mode}": (name, entry)
    for path in sorted(DEFAULTS.glob("*.json"))
    for entry in Tuning.from_json(path.read_bytes()).entries
    for name, candidate in entry.candidates.items()
    if entry.kind == "bilinear" and entry.heads == 1 and candidate.config is not None
}


@pytest.mark.parametrize(("name", "entry"), SHIPPED.values(), ids=SHIPPED)
def test_shipped_sizes_give_a_right_result(name, entry):
    dtype, others = getattr(torch, entry.dtype), entry.other_tokens or None
    x, factors, y = operands(entry.tokens, entry.in_features, entry.rank, dtype, others)
    if entry.out_features != entry.in_features:
        factors = Factors(factors.a, make(entry.rank, entry.out_features, dtype=dtype) / 8)
        y = make(others or entry.tokens, entry.out_features, dtype=dtype, seed=2)
    result = OWN_BILINEAR[name].run_with(entry.candidates[name].config, x, factors, y)
    rows = torch.arange(0, entry.tokens, max(1, entry.tokens // 64), device="cuda")
    assert_right(result[rows], finished(x[rows], factors.a, factors.b, x if y is None else y))


def test_a_call_with_an_epilogue_is_captured_after_one_eager_call(monkeypatch):
    """Although the sizes of a captured call, and so its code, may be others than those of the eager one."""
    sizes = {"eager": CONFIGS["split"], "graph": Config(Tiles(32, 32, 32, split=2), Tiles(32, 64, 32))}
    monkeypatch.setattr(_bilinear_choice, "config", lambda impl, signature: sizes[signature.mode])
    generator = torch.Generator("cuda").manual_seed(3)
    x = torch.randn(200, 256, generator=generator, device="cuda").bfloat16()
    pair = torch.randn(16, 2, 256, generator=generator, device="cuda").bfloat16() / 16
    arguments = {"scale": 0.5, "softcap": 3.0, "causal": True, "impl": "triton"}
    factors = Factors(pair[:, 0], pair[:, 1])
    expected = narrows.bilinear(x, factors, **arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = narrows.bilinear(x, factors, **arguments)
    graph.replay()
    # Both sum in float32 and round once: one step of bfloat16 below the cap of 3 apart.
    assert torch.allclose(out.float(), expected.float(), atol=2**-6)
