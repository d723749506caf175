"""Attention on a GPU: long caches, torch's fused kernels, graphs, streams, addresses beyond 32 bits."""

import pytest
import torch
from torch.nn.attention import SDPBackend

import narrows
from kernels.attention_operands import Call, call, options
from narrows.kernels import ATTENTION_SDPA, ATTENTION_TRITON, DecodeConfig, prepare_sdpa
from narrows.kernels.triton import _attention

pytestmark = pytest.mark.gpu
HALVES = [torch.bfloat16, torch.float16]
WIDTHS = [(128, 128), (64, 128), (64, 64), (32, 128), (32, 64), (20, 36), (40, 96)]
OPTIONS = options()


def attend(wanted, impl="auto", **changes):
    return narrows.attend(*wanted.tensors, scale=wanted.scale, impl=impl, **{**wanted.options, **changes})


def run_with(wanted, config):
    return ATTENTION_TRITON.run_with(config, *wanted.tensors, scale=wanted.scale, **wanted.options)


@pytest.mark.parametrize("impl", ["triton", "sdpa"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_decode_against_a_long_cache(widths, dtype, impl):
    R, F = widths
    wanted = call(2, 32, 8, 1, 16384 - 13, R, F, dtype=dtype, device="cuda")
    assert wanted.error(attend(wanted, impl)) <= 1


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("impl", ["auto", "triton", "sdpa", "math"])
def test_every_option_for_several_queries(impl, dtype, name):
    wanted = call(
        2, 8, 4, 5, 3001, 64, 128, dtype=dtype, device="cuda", **options(dtype, "cuda", H=8, T=5, U=3001)[name]
    )
    result = attend(wanted, impl)
    assert wanted.error(result) <= 1
    assert result.is_contiguous()


@pytest.mark.parametrize("shape", [(1, 64, 1, 1), (1, 4, 4, 16), (2, 8, 2, 16), (600, 2, 1, 1)], ids=str)
def test_rows_of_a_key_head_from_one_to_sixty_four(shape):
    wanted = call(*shape, 777, 64, 64, dtype=torch.bfloat16, device="cuda", causal=True)
    assert wanted.error(attend(wanted, "triton")) <= 1


@pytest.mark.parametrize("stages", [2, 4])
@pytest.mark.parametrize("splits", [1, 7, 64, 200])
@pytest.mark.parametrize("block", [32, 64, 128])
def test_every_size_gives_the_same_answer(block, splits, stages):
    config = DecodeConfig(block, splits, stages=stages)
    wanted = call(2, 8, 2, 1, 5000, 64, 128, dtype=torch.bfloat16, device="cuda")
    assert wanted.error(run_with(wanted, config)) <= 1


@pytest.mark.parametrize("overlap", [False, True])
def test_a_thousand_repeats_are_bitwise_equal(overlap):
    wanted = call(4, 32, 8, 1, 4099, 64, 64, dtype=torch.bfloat16, device="cuda")
    config = DecodeConfig(overlap=overlap)
    first = run_with(wanted, config)
    same = torch.ones((), dtype=torch.bool, device="cuda")
    for _ in range(1000):
        same &= (run_with(wanted, config) == first).all()
    assert bool(same)


@pytest.mark.parametrize("impl", ["triton", "sdpa"])
def test_a_graph_replays_on_new_data_and_new_lengths(impl):
    lengths = torch.tensor([100, 3000], device="cuda")
    wanted = call(2, 8, 2, 1, 4096, 64, 128, dtype=torch.bfloat16, device="cuda", lengths=lengths)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        attend(wanted, impl)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = attend(wanted, impl)
    for seed, new in ((1, [4096, 0]), (2, [17, 1])):
        for old, fresh in zip(
            wanted.tensors, call(2, 8, 2, 1, 4096, 64, 128, device="cuda", seed=seed).tensors, strict=True
        ):
            old.copy_(fresh)
        lengths.copy_(torch.tensor(new))
        result.fill_(torch.nan)
        graph.replay()
        assert wanted.error(result) <= 1


def test_a_stream_of_its_own_is_used():
    wanted = call(2, 8, 2, 1, 4096, 64, 128, dtype=torch.bfloat16, device="cuda")
    expected = attend(wanted, "triton")
    stream = torch.cuda.Stream()
    late = torch.empty_like(wanted.q)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # 10 ms: a launch on another stream would read `late` before it is written
        late.copy_(wanted.q)
        result = narrows.attend(late, wanted.k, wanted.v, scale=wanted.scale, impl="triton")
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(result, expected)


def test_a_cache_longer_than_its_lengths_is_read_in_place():
    lengths = torch.tensor([1000, 4000], device="cuda")
    wanted = call(2, 8, 2, 1, 8192, 64, 64, dtype=torch.bfloat16, device="cuda", lengths=lengths)
    wanted.k[:, :, 4000:], wanted.v[:, :, 4000:] = torch.nan, torch.nan
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["requested_bytes.all.current"]
    torch.cuda.reset_peak_memory_stats()
    result = attend(wanted, "triton")
    torch.cuda.synchronize()
    taken = torch.cuda.memory_stats()["requested_bytes.all.peak"] - before
    assert taken < wanted.k.nbytes // 8
    assert wanted.error(result) <= 1


@pytest.mark.parametrize("layout", ["keys before heads", "an odd start", "one batch for all"])
def test_caches_in_other_layouts(layout):
    from kernels.triton.test_attention import LAYOUTS

    wanted = call(2, 8, 2, 1, 2000, 64, 96, dtype=torch.bfloat16, device="cuda")
    wanted.q, wanted.k, wanted.v = (LAYOUTS[layout](t) for t in wanted.tensors)
    assert wanted.error(attend(wanted, "triton")) <= 1
    assert wanted.error(attend(wanted, "sdpa")) <= 1


def test_lengths_of_either_dtype_are_read_as_what_they_are():
    for dtype in (torch.int64, torch.int32, torch.int64):
        lengths = torch.tensor([1000, 3], device="cuda", dtype=dtype)
        wanted = call(2, 8, 2, 1, 2000, 64, 64, dtype=torch.bfloat16, device="cuda", lengths=lengths)
        for _ in range(2):
            assert wanted.error(attend(wanted, "triton")) <= 1


def test_a_growing_cache_uses_one_compiled_kernel():
    wanted = call(2, 8, 2, 1, 3000, 64, 64, dtype=torch.bfloat16, device="cuda")
    launches = set()
    for keys in (2000, 2001, 2048, 3000):
        grown = Call(wanted.q, wanted.k[:, :, :keys].contiguous(), wanted.v[:, :, :keys].contiguous(), wanted.scale)
        assert grown.error(attend(grown, "triton")) <= 1
        launches.add(_attention._split_launch.cache_info().currsize)
    assert len(launches) == 1


def test_addresses_beyond_32_bits():
    keys = (1 << 24) + 1000
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip("not shown: less than 12 GiB are free")
    q = torch.full((1, 1, 1, 128), 8.0, dtype=torch.bfloat16, device="cuda")
    k = torch.zeros(1, 1, keys, 128, dtype=torch.bfloat16, device="cuda")
    v = torch.zeros(1, 1, keys, 128, dtype=torch.bfloat16, device="cuda")
    k[:, :, -1], v[:, :, -1] = 8.0, torch.arange(128.0, device="cuda")
    result = narrows.attend(q, k, v, scale=1.0, impl="triton")
    assert torch.equal(result[0, 0, 0].float(), torch.arange(128.0, device="cuda"))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("groups", [8, 2])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_prefill_through_torch(widths, groups, causal):
    R, F = widths
    wanted = call(1, 8, groups, 500, 500, R, F, dtype=torch.bfloat16, device="cuda", causal=causal)
    assert wanted.error(attend(wanted)) <= 1


@pytest.mark.parametrize("queries", [1, 17, 500])
def test_a_chunk_against_a_longer_cache_sees_up_to_its_own_place(queries):
    wanted = call(2, 8, 2, queries, 900, 64, 128, dtype=torch.bfloat16, device="cuda", causal=True)
    assert wanted.error(attend(wanted)) <= 1


@pytest.mark.parametrize("widths", [(64, 128), (32, 64), (20, 36)], ids=str)
def test_unequal_widths_go_to_cudnn_on_hopper(widths):
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("not shown: another device")
    wanted = call(1, 8, 8, 512, 512, *widths, dtype=torch.bfloat16, device="cuda")
    prepared = prepare_sdpa(*wanted.tensors, mask=None, causal=False, lengths=None)
    assert prepared.backend() is SDPBackend.CUDNN_ATTENTION
    assert wanted.error(wanted.run(ATTENTION_SDPA)) <= 1


def test_a_pinned_backend_is_the_one_that_runs():
    wanted = call(1, 8, 8, 512, 512, 64, 128, dtype=torch.bfloat16, device="cuda")
    prepared = prepare_sdpa(*wanted.tensors, mask=None, causal=False, lengths=None)
    chosen = prepared.backend()
    enabled = torch.backends.cuda.flash_sdp_enabled()
    with prepared.pinned():
        assert torch._fused_sdp_choice(prepared.q, prepared.k, prepared.v, scale=1.0) == chosen.value
    assert torch.backends.cuda.flash_sdp_enabled() == enabled


@pytest.mark.parametrize("impl", ["triton", "sdpa", "math"])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_row_that_sees_nothing_is_zero(kind, impl):
    mask = torch.ones(5, 640, dtype=torch.bool, device="cuda")
    mask[2] = False
    if kind == "float":
        mask = torch.zeros(mask.shape, device="cuda").masked_fill(~mask, -torch.inf).bfloat16()
    wanted = call(1, 8, 2, 5, 640, 64, 64, dtype=torch.bfloat16, device="cuda", mask=mask)
    assert wanted.error(attend(wanted, impl)) <= 1
    assert not attend(wanted, impl)[:, :, 2].any()


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_float64(causal):
    wanted = call(1, 8, 2, 300, 300, 64, 128, dtype=torch.bfloat16, device="cuda", causal=causal, spread=1.0)
    leaves = [t.clone().requires_grad_() for t in wanted.tensors]
    exact = [t.double().requires_grad_() for t in wanted.tensors]
    given = torch.randn(1, 8, 300, 128, device="cuda", dtype=torch.bfloat16)
    mine = torch.autograd.grad(narrows.attend(*leaves, scale=wanted.scale, causal=causal), leaves, given)
    theirs = torch.autograd.grad(
        narrows.attend(*exact, scale=wanted.scale, causal=causal, impl="math"), exact, given.double()
    )
    for got, right in zip(mine, theirs, strict=True):
        # Weights, their gradients and the result are each rounded to bfloat16 (2^-8) once or twice: 5 roundings.
        assert (got.double() - right).norm() <= 5 * 2.0**-8 * right.norm()


def test_a_compiled_decode_step_is_the_eager_one():
    torch._dynamo.reset()
    wanted = call(2, 8, 2, 1, 1000, 64, 128, dtype=torch.bfloat16, device="cuda")
    compiled = torch.compile(lambda q, k, v: narrows.attend(q, k, v, scale=wanted.scale) * 2, fullgraph=True)
    assert torch.equal(compiled(*wanted.tensors), attend(wanted) * 2)
