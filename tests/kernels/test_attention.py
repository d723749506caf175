"""Attention in torch operations against float64, what "auto" means, and how a decode step is launched."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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
)
from narrows.kernels._attention_config import SHARED_BYTES, decode_config, even_splits, padded

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


def test_the_default_is_one_even_wave_on_an_h200():
    assert decode_config(64, 16384, rank=64, width=64, itemsize=2, multiprocessors=132) == DecodeConfig(splits=8)
    assert decode_config(64, 16384, rank=128, width=128, itemsize=2, multiprocessors=132) == DecodeConfig(splits=6)


@given(pairs=st.integers(1, 3000), most=st.integers(1, 128), slots=st.integers(1, 600))
def test_splits_are_the_fewest_near_the_best(pairs, most, slots):
    splits = even_splits(pairs, most, slots)
    time = lambda s: math.ceil(pairs * s / slots) / s  # noqa: E731
    best = min(time(s) for s in range(1, most + 1))
    assert 1 <= splits <= most
    assert time(splits) <= 1.05 * best
    assert all(time(s) > 1.05 * best for s in range(1, splits))


@given(
    pairs=st.integers(1, 999), keys=st.integers(1, 99999), rank=st.integers(1, 512), width=st.integers(1, 512)
)  # fmt: skip
def test_two_programs_or_more_fit_a_multiprocessor(pairs, keys, rank, width):
    for itemsize in (2, 4):
        if max(rank, width) * itemsize > 1024:
            continue
        found = decode_config(pairs, keys, rank=rank, width=width, itemsize=itemsize, multiprocessors=132)
        key_bytes = (padded(rank) + padded(width)) * itemsize
        assert (found.stages - 1) * found.block * key_bytes <= SHARED_BYTES // 2
        assert found.block >= 16
        assert found.splits <= max(1, math.ceil(keys / found.block))
