"""Attention in torch operations against float64, what "auto" means, and how a decode step is launched."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from kernels.attention_operands import Call, bool_mask, call, options
from kernels.counting import Calls
from narrows.errors import ImplementationError
from narrows.kernels import (
    ATTENTION_MATH,
    ATTENTION_SDPA,
    ATTENTION_TRITON,
    AttentionProblem,
    DecodeConfig,
    attention_kernel,
    auto_attention,
    prepare_sdpa,
)
from narrows.kernels._attention_config import SHARED_BYTES, decode_config, even_splits, padded
from narrows.kernels._attention_mask import added_mask
from narrows.kernels._attention_sdpa import readable

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
TORCH = [ATTENTION_MATH, ATTENTION_SDPA]
SHAPES = {
    "one query": {"T": 1},
    "a head of its own": {"G": 4},
    "one key head": {"G": 1},
    "narrow values": {"R": 36, "F": 20},
    "equal widths": {"R": 16, "F": 16},
    "as many keys": {"U": 3},
    "one key": {"T": 1, "U": 1},
}


@pytest.mark.parametrize("name", options())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", TORCH, ids=lambda k: k.name)
def test_every_option_is_within_the_derived_bound(kernel, dtype, name):
    wanted = call(T=3, dtype=dtype, **options(dtype)[name])
    assert wanted.error(wanted.run(kernel)) <= 1


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kernel", TORCH, ids=lambda k: k.name)
def test_every_shape_is_within_the_derived_bound(kernel, shape, causal):
    wanted = call(**{"T": 3, **shape}, causal=causal)
    assert wanted.error(wanted.run(kernel)) <= 1


@pytest.mark.parametrize("kernel", TORCH, ids=lambda k: k.name)
def test_what_lies_beyond_the_lengths_may_be_anything(kernel):
    wanted = call(lengths=torch.tensor([9, 70]))
    for cache in (wanted.k, wanted.v):
        cache[0, :, 9:] = torch.nan
        cache[1, :, 70:] = torch.inf
    assert wanted.error(wanted.run(kernel)) <= 1


def test_a_row_that_sees_nothing_is_zero_as_torch_gives_it():
    wanted = call(H=2, G=2, T=3, R=16, F=16, mask=bool_mask(3, 77).index_fill(0, torch.tensor([1]), False))
    by_torch = torch.nn.functional.scaled_dot_product_attention(
        *wanted.tensors, wanted.options["mask"], scale=wanted.scale
    )
    assert not by_torch[:, :, 1].any()
    for kernel in TORCH:
        result = wanted.run(kernel)
        assert not result[:, :, 1].any()
        assert result[:, :, 0].abs().min() > 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", TORCH, ids=lambda k: k.name)
def test_a_row_of_the_least_number_is_no_row_that_sees_nothing(kernel, dtype):
    """Such masks are common; added to every key, the least number changes nothing: all weights are alike."""
    mask = torch.zeros(3, 8, dtype=dtype)
    mask[1] = torch.finfo(dtype).min
    mask[1, 6:] = -torch.inf
    wanted = call(H=2, T=3, U=8, dtype=dtype, spread=1e-3, mask=mask)
    wanted.v = wanted.v.abs()
    mean = wanted.v[:, :, :6].double().mean(2)
    assert (wanted.run(kernel)[:, :, 1] - mean).abs().max() <= 2.0**-6 * wanted.v.max()


@pytest.mark.parametrize("kernel", TORCH, ids=lambda k: k.name)
def test_a_hidden_key_has_no_weight_however_large_its_score(kernel):
    q, k, v = torch.full((1, 1, 2, 4), 500.0), torch.full((1, 1, 3, 4), 500.0), torch.eye(3, 4)[None, None]
    k[:, :, 0] = -500.0
    for mask in (torch.tensor([True, False, False]), torch.tensor([0.0, -torch.inf, -torch.inf])):
        assert torch.equal(kernel.run(q, k, v, scale=1.0, mask=mask), v[:, :, :1].expand(1, 1, 2, 4))


@pytest.mark.parametrize("keys", [1, 7, 15, 16, 17, 40])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", TORCH, ids=lambda k: k.name)
def test_a_query_of_nan_gives_nan_however_few_keys_there_are(kernel, dtype, keys):
    """torch's own kernel on a CPU gives 0 where there are fewer keys than a vector holds numbers."""
    wanted = call(T=3, U=keys, R=8, F=8, dtype=dtype)
    wanted.q[:, :, 1] = torch.nan
    result = wanted.run(kernel)
    assert result[:, :, 1].isnan().all()
    assert not result[:, :, [0, 2]].isnan().any()


@pytest.mark.parametrize("spread", [-3.0, 0.0])
@pytest.mark.parametrize("keys", [3, 40])
@pytest.mark.parametrize("kernel", TORCH, ids=lambda k: k.name)
def test_a_scale_of_zero_or_less_hides_no_fewer_keys(kernel, keys, spread):
    """torch's own kernel on a CPU hides keys before it scales: -inf times a negative number takes part."""
    wanted = call(T=keys, U=keys, spread=spread, causal=True)
    assert wanted.error(wanted.run(kernel)) <= 1
    leaves = [tensor.requires_grad_() for tensor in wanted.tensors]
    prepared = prepare_sdpa(*leaves, mask=None, causal=True, lengths=None, may_share=False)
    gradients = prepared.differentiate(wanted.scale, leaves, torch.ones(2, 4, keys, 36))
    expected = torch.autograd.grad(wanted.run(ATTENTION_MATH).sum(), leaves)
    # Two float32 backward passes over sums of 40 terms near 3.
    assert all(torch.allclose(mine, other, atol=1e-4) for mine, other in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_added_mask_opens_the_rows_that_see_nothing_and_names_them(dtype):
    seen = torch.tensor([[True, False], [False, False]])
    for mask in (seen, torch.zeros(2, 2, dtype=dtype).masked_fill(~seen, -torch.inf)):
        added, blind = added_mask(mask, dtype=dtype, keys=2, may_be_blind=True)
        assert added.dtype == dtype
        assert added[[0, 1, 1], [0, 0, 1]].tolist() == [0, 0, 0]
        assert added[0, 1] == (-torch.inf if dtype == torch.float16 else torch.tensor(-2e38, dtype=dtype))
        assert blind.tolist() == [[False], [True]]


def test_an_added_mask_of_rows_is_written_out_for_the_keys():
    added, blind = added_mask(torch.tensor([[True], [False]]), dtype=torch.bfloat16, keys=9, may_be_blind=True)
    assert added.shape == (2, 9)
    assert added.is_contiguous()
    assert blind.tolist() == [[False], [True]]


def test_causality_alone_hides_all_keys_only_where_rows_are_more():
    for T, U, blind in ((3, 4, 0), (3, 3, 0), (4, 3, 1)):
        q, k, v = call(T=T, U=U, dtype=torch.float16).tensors
        call_ = prepare_sdpa(q, k, v, mask=None, causal=True, lengths=None)
        assert (0 if call_.blind is None else int(call_.blind.sum())) == blind
        assert call_.is_causal == (T == U)
        assert call_.mask is None or call_.mask.dtype == torch.float16


UNREADABLE = {
    "an odd address": lambda: torch.randn(2 * 3 * 5 * 16 + 8, dtype=torch.float16)[1:481].view(2, 3, 5, 16),
    "an odd row": lambda: torch.randn(2, 3, 5, 17, dtype=torch.float16)[..., :16],
    "columns": lambda: torch.randn(2, 3, 16, 5, dtype=torch.float16).mT,
    "one batch for all": lambda: torch.randn(1, 3, 5, 16, dtype=torch.float16).expand(2, 3, 5, 16),
    "an odd stride that leads nowhere": lambda: torch.randn(80, dtype=torch.float16).as_strided(
        (1, 1, 5, 16), (3, 0, 16, 1)
    ),
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE)
def test_what_a_fused_kernel_cannot_read_is_copied(make):
    tensor = make()
    copy = readable(tensor)
    assert torch.equal(copy, tensor)
    assert copy.data_ptr() != tensor.data_ptr()
    assert copy.stride() == torch.empty(tensor.shape).stride()
    assert readable(copy) is copy


def test_where_only_shapes_are_traced_the_place_in_the_memory_counts():
    with FakeTensorMode():
        tensor = torch.empty(2, 3, 5, 16, dtype=torch.float16)
        assert readable(tensor) is tensor
        odd = tensor.flatten()[1:241].view(1, 3, 5, 16)
        assert odd.storage_offset() == 1
        assert readable(odd).storage_offset() == 0


def test_what_a_fused_kernel_can_read_is_not_copied():
    longer = torch.empty(2, 3, 9, 24, dtype=torch.float16)
    for tensor in (longer, longer.transpose(1, 2), longer[:, :, 1:5, 8:], longer[..., :16], longer.float()[..., 4:20]):
        assert readable(tensor) is tensor


def test_the_last_query_sees_the_last_key():
    """With values that number the keys and equal scores, a row is the mean of the numbers it sees."""
    q, k, v = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 5, 4), torch.arange(5.0).view(1, 1, 5, 1)
    for kernel in TORCH:
        assert kernel.run(q, k, v, scale=1.0, causal=True).flatten().tolist() == [1.5, 2.0]
        lengths = torch.tensor([3])
        assert kernel.run(q, k, v, scale=1.0, causal=True, lengths=lengths).flatten().tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    "mutant",
    [
        lambda c: c.run(ATTENTION_MATH, scale=c.scale * 1.01),
        lambda c: c.run(ATTENTION_MATH, causal=False),
        lambda c: c.run(ATTENTION_MATH, lengths=torch.tensor([77, 6])),
        lambda c: Call(c.q, c.k[:, :, 1:], c.v[:, :, 1:], c.scale).run(ATTENTION_MATH),
        lambda c: c.run(ATTENTION_MATH).flip(1),
        lambda c: torch.zeros_like(c.run(ATTENTION_MATH)),
    ],
    ids=["scale", "not causal", "stale length", "a key dropped", "heads swapped", "zeros"],
)
def test_the_bound_catches(mutant):
    wanted = call(T=3, dtype=torch.float16, lengths=torch.tensor([77, 5]), causal=True)
    assert wanted.error(wanted.run(ATTENTION_MATH)) <= 1
    assert wanted.error(mutant(wanted)) > 1


@pytest.mark.parametrize("name", ["plain", "bool mask of keys, lengths"])
def test_heads_of_a_group_become_rows_without_repeating_keys(name):
    wanted = call(T=3, R=16, F=16, mask=options()[name].get("mask"))
    with Calls() as calls:
        wanted.run(ATTENTION_SDPA)
    assert calls.copies == 0, calls.names
    assert not calls.names["repeat_interleave"]


def problem(**changes):
    sizes = {"heads": 32, "groups": 8, "queries": 1, "rank": 64, "width": 128, "dtype": "bfloat16", "device": "cuda"}
    return AttentionProblem(**{**sizes, **changes})


@pytest.fixture
def _a_gpu(monkeypatch):
    monkeypatch.setattr("narrows.kernels._attention.unsupported", lambda *_: "")


@pytest.mark.usefixtures("_a_gpu")
def test_auto_decodes_with_own_kernels_on_cuda_and_leaves_the_rest_to_torch():
    assert auto_attention(problem()) is ATTENTION_TRITON
    assert auto_attention(problem(queries=16)) is ATTENTION_TRITON
    assert auto_attention(problem(queries=17)) is ATTENTION_SDPA
    assert auto_attention(problem(device="cpu")) is ATTENTION_SDPA


@pytest.mark.usefixtures("_a_gpu")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"queries": 17}, "up to T=16 query rows; here T=17"),
        ({"queries": 16, "groups": 4}, "up to 64 rows .* in bfloat16; here T=16, H=32, G=4 give 128"),
        ({"queries": 5, "dtype": "float32"}, "up to 16 rows .* in float32; here T=5, H=32, G=8 give 20"),
        ({"rank": 513}, "widths up to 512 in bfloat16; here R=513, F=128"),
        ({"width": 257, "dtype": "float32"}, "widths up to 256 in float32; here R=64, F=257"),
        ({"is_row_major": False}, "last dimension must have stride 1"),
    ],
)
def test_own_kernels_say_what_they_refuse(changes, reason):
    with pytest.raises(ImplementationError, match=rf"impl='triton' cannot run this: .*{reason}.*one of: math, sdpa\."):
        attention_kernel("triton", problem(**changes))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ImplementationError, match=r"impl='flash' is not an implementation of attention.*math, sdpa"):
        attention_kernel("flash", problem(device="cpu"))


def test_a_problem_sees_how_the_operands_lie():
    q, k, v = call(R=20, F=36).tensors
    found = AttentionProblem.of(q, k, v)
    assert (found.heads, found.groups, found.queries, found.rank, found.width) == (4, 2, 1, 20, 36)
    assert (found.rows, found.dtype, found.device, found.is_row_major) == (2, "float32", "cpu", True)
    assert not AttentionProblem.of(q, k.mT.contiguous().mT, v).is_row_major


FASTEST = {
    (128, 128): DecodeConfig(64, 4, stages=3),
    (64, 128): DecodeConfig(64, 4, stages=3),
    (64, 64): DecodeConfig(128, 4, stages=3),
    (32, 128): DecodeConfig(64, 4, stages=3),
    (32, 64): DecodeConfig(128, 4, stages=3),
}


@pytest.mark.parametrize("widths", FASTEST, ids=str)
def test_the_default_is_what_was_fastest_on_an_h200(widths):
    """Of 13 or 14 sizes each: batch 8, 32 and 8 heads, 16384 keys, bfloat16, in one graph of calls on cold caches."""
    rank, width = widths
    found = decode_config(64, 16384, rows=4, rank=rank, width=width, itemsize=2, multiprocessors=132)
    assert found == FASTEST[widths]


def test_many_rows_get_another_stage_instead_of_a_larger_block():
    sizes = {"rank": 64, "width": 64, "itemsize": 2, "multiprocessors": 132}
    assert decode_config(64, 16384, rows=16, **sizes) == DecodeConfig(128, 4, stages=3)
    assert decode_config(64, 16384, rows=17, **sizes) == DecodeConfig(64, 4, stages=4)


@given(pairs=st.integers(1, 3000), most=st.integers(1, 128), slots=st.integers(1, 600))
def test_splits_are_the_fewest_near_the_best(pairs, most, slots):
    splits = even_splits(pairs, most, slots)
    time = lambda s: math.ceil(pairs * s / slots) / s  # noqa: E731
    best = min(time(s) for s in range(1, most + 1))
    assert 1 <= splits <= most
    assert time(splits) <= 1.05 * best
    assert all(time(s) > 1.05 * best for s in range(1, splits))


@given(
    pairs=st.integers(1, 999), keys=st.integers(1, 99999), rows=st.integers(1, 64), rank=st.integers(1, 512),
    width=st.integers(1, 512),
)  # fmt: skip
def test_two_programs_or_more_fit_a_multiprocessor(pairs, keys, rows, rank, width):
    for itemsize in (2, 4):
        if max(rank, width) * itemsize > 1024:
            continue
        sizes = {"rank": rank, "width": width, "itemsize": itemsize, "multiprocessors": 132}
        found = decode_config(pairs, keys, rows=rows, **sizes)
        key_bytes = (padded(rank) + padded(width)) * itemsize
        assert (found.stages - 1) * found.block * key_bytes <= SHARED_BYTES // 2
        assert found.block >= 16
        assert found.splits <= max(1, math.ceil(keys / found.block))
