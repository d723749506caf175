"""T3 data: whole numbers on which any order of summation gives the same bits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.errors import InputError
from narrows.testing import exact_operands, normal_operands, poisoned

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def chain(operands, order=slice(None)):
    first = operands.x[:, order] @ operands.a[:, order].mT
    second = operands.b if operands.y is None else (operands.y @ operands.b.mT).mT
    return first @ second


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["linear", "bilinear"]),
    dtype=st.sampled_from(DTYPES),
    T=st.integers(0, 20),
    U=st.integers(0, 20),
    D=st.integers(1, 40),
    E=st.integers(1, 40),
    R=st.integers(1, 20),
    seed=st.integers(0, 10**6),
)
def test_any_order_gives_the_expected_bits(kind, dtype, T, U, D, E, R, seed):
    operands = exact_operands(
        kind, tokens=T, other_tokens=U, in_features=D, out_features=E, rank=R, dtype=dtype, seed=seed
    )
    backwards = torch.arange(D).flip(0)
    assert torch.equal(chain(operands), operands.expected)
    assert torch.equal(chain(operands, backwards), operands.expected)
    assert operands.expected.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 15, 16, 17, 63, 64, 65])
def test_every_index_of_every_operand_counts(dtype, size):
    operands = exact_operands("bilinear", tokens=size, in_features=size, out_features=33, rank=16, dtype=dtype)
    for operand in (operands.x, operands.a, operands.b, operands.y):
        assert operand.any(dim=0).all()
        assert operand.any(dim=1).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [0, 31, 64])
def test_leaving_out_one_index_changes_the_result(dtype, k):
    """Canary: the data sees a sum that is one term short."""
    operands = exact_operands("linear", tokens=65, in_features=65, out_features=65, rank=65, dtype=dtype)
    keep = [i for i in range(65) if i != k]
    assert not torch.equal(chain(operands, keep), operands.expected)


def test_y_can_be_x():
    operands = exact_operands(
        "bilinear", tokens=9, in_features=12, out_features=12, rank=4, dtype=torch.bfloat16, is_self=True
    )
    assert torch.equal(operands.x, operands.y)
    assert torch.equal(chain(operands), operands.expected)


def test_sizes_that_no_bfloat16_number_holds_are_refused():
    with pytest.raises(InputError, match=r"no exact operands found for T=8, U=8, D=20000, .* exact up to 256"):
        exact_operands("bilinear", tokens=8, in_features=20_000, out_features=20_000, rank=1, dtype=torch.bfloat16)


def test_poisoned_memory_is_nan_throughout():
    memory = poisoned((2, 3), torch.bfloat16)
    assert memory.shape == (2, 3)
    assert memory.dtype == torch.bfloat16
    assert memory.isnan().all()


def test_normal_operands_have_heads_and_are_reproducible():
    sizes = {"tokens": 5, "in_features": 6, "out_features": 7, "rank": 3, "dtype": torch.float16, "heads": 2}
    first, second = normal_operands("bilinear", **sizes), normal_operands("bilinear", **sizes)
    assert first.a.shape == (2, 3, 6)
    assert first.y.shape == (5, 7)
    assert torch.equal(first.b, second.b)
    assert normal_operands("linear", **sizes).y is None
