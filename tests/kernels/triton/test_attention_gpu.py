"""Attention on a GPU: long caches, torch's fused kernels, graphs, streams, addresses beyond 32 bits."""

import pytest
import torch
from torch.nn.attention import SDPBackend

import narrows
from kernels.attention_operands import Call, bool_mask, call, options
from kernels.triton.test_attention import LAYOUTS as TINY_LAYOUTS
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


def odd_address(t):
    """Return the same one element further on: rows lie as they did, no longer at multiples of 16 bytes."""
    return torch.cat([t.new_full((1,), torch.nan), t.flatten()])[1:].view_as(t)


LAYOUTS = {
    **TINY_LAYOUTS,
    "an odd address": odd_address,
    "one head for all": lambda t: t[:, :1].expand_as(t),
    "one key for all": lambda t: t[:, :, :1].expand_as(t),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("queries", [1, 130])
def test_operands_in_other_layouts(queries, layout):
    wanted = call(2, 8, 2, queries, 600, 64, 96, dtype=torch.bfloat16, device="cuda")
    # The first one is compiled for aligned addresses; what it left behind must not run the second.
    for change in (torch.clone, layout):
        wanted.q, wanted.k, wanted.v = (change(t) for t in wanted.tensors)
        for impl in ["sdpa", "auto"]:
            assert wanted.error(attend(wanted, impl)) <= 1


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


MASKS = {
    "half of the keys": lambda T, U: bool_mask(T, U, device="cuda"),
    "the first blocks hidden": lambda T, U: (torch.arange(U, device="cuda") >= U - 20).expand(T, U),
    "only the first key": lambda T, U: (torch.arange(U, device="cuda") < 1).expand(T, U),
    "whole rows": lambda T, U: torch.arange(T, device="cuda")[:, None] % 3 > 0,
    "whole batches": lambda T, U: torch.tensor([True, False], device="cuda")[:, None, None, None],
}


def as_float(mask, dtype):
    return torch.zeros(mask.shape, dtype=dtype, device="cuda").masked_fill(~mask, -torch.inf)


@pytest.mark.parametrize("is_float", [False, True])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_masks_that_hide_blocks_rows_and_batches(dtype, name, is_float):
    for T, U in ((1, 701), (5, 701), (130, 704)):
        mask = MASKS[name](T, U)
        mask = as_float(mask, dtype) if is_float else mask
        wanted = call(2, 8, 4, T, U, 64, 128, dtype=dtype, device="cuda", mask=mask)
        for impl in ("auto", "sdpa"):
            assert wanted.error(attend(wanted, impl)) <= 1, (T, impl)


@pytest.mark.parametrize("is_float", [False, True])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_hidden_key_has_no_weight_however_large_its_score(dtype, is_float):
    """Scores of half a million: a mask that adds -65504, torch's for cuDNN, would lose against them."""
    for T in (1, 130):
        q, k = (torch.full((2, 8, size, 64), 300.0, dtype=dtype, device="cuda") for size in (T, 256))
        v = torch.randn(2, 8, 256, 64, device="cuda").to(dtype)
        k[:, :, 100] = -300.0
        mask = torch.arange(256, device="cuda")[None] == 100
        mask = as_float(mask, dtype) if is_float else mask
        for impl in ("auto", "sdpa"):
            result = narrows.attend(q, k, v, scale=0.1, mask=mask, impl=impl)
            # A score is 800000 in base 2, where float32 counts in steps of 2^-4, rounded away by half of one at most.
            assert ((result - v[:, :, 100:101]).abs() <= 2.0**-4 * v.abs().max()).all(), (T, impl)


def test_a_row_of_the_least_number_is_no_row_that_sees_nothing():
    for T in (3, 130):
        mask = torch.zeros(T, 256, dtype=torch.bfloat16, device="cuda")
        mask[1] = torch.finfo(torch.bfloat16).min
        lengths = torch.tensor([200, 200], device="cuda")
        wanted = call(2, 8, 8, T, 256, 64, 64, dtype=torch.bfloat16, device="cuda", spread=1e-3, mask=mask)
        wanted.v = wanted.v.abs()
        mean = wanted.v[:, :, :200].double().mean(2)
        for impl in ("auto", "sdpa", "math"):
            found = attend(wanted, impl, lengths=lengths)[:, :, 1]
            assert (found - mean).abs().max() <= 2.0**-6 * wanted.v.max(), (T, impl)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("queries", [1, 130])
def test_lengths_of_no_key_of_fewer_than_rows_and_of_all(queries, causal):
    lengths = torch.tensor([0, 3, 257, 300, 999], device="cuda")
    wanted = call(5, 8, 2, queries, 300, 20, 36, dtype=torch.bfloat16, device="cuda", lengths=lengths, causal=causal)
    wanted.k[0], wanted.v[0] = torch.nan, torch.inf
    for impl in ("auto", "sdpa"):
        result = attend(wanted, impl)
        assert wanted.error(result) <= 1
        assert not result[0].any()


@pytest.mark.parametrize("shape", [(2, 8, 2, 1, 1), (2, 8, 8, 1, 1), (2, 8, 2, 40, 1), (2, 8, 8, 40, 1)], ids=str)
def test_one_key_gives_its_value_itself(shape):
    for R, F in ((64, 64), (64, 128), (3, 5)):
        wanted = call(*shape, R, F, dtype=torch.bfloat16, device="cuda")
        for impl in ("auto", "sdpa"):
            result = attend(wanted, impl)
            assert torch.equal(result, wanted.v.repeat_interleave(shape[1] // shape[2], 1).expand_as(result))


def test_nothing_to_compute_gives_zeros():
    for B, T, U in ((0, 1, 8), (2, 0, 8), (2, 1, 0), (2, 40, 0)):
        wanted = call(B, 4, 2, T, U, 64, 64, dtype=torch.bfloat16, device="cuda")
        leaves = [t.requires_grad_() for t in wanted.tensors]
        for impl in ("auto", "sdpa"):
            result = attend(wanted, impl)
            assert result.shape == (B, 4, T, 64)
            assert not result.any()
            assert not any(found.any() for found in torch.autograd.grad(result.sum(), leaves))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own import
def test_a_compiled_decode_step_is_the_eager_one():
    torch._dynamo.reset()
    wanted = call(2, 8, 2, 1, 1000, 64, 128, dtype=torch.bfloat16, device="cuda")
    compiled = torch.compile(lambda q, k, v: narrows.attend(q, k, v, scale=wanted.scale) * 2, fullgraph=True)
    assert torch.equal(compiled(*wanted.tensors), attend(wanted) * 2)
