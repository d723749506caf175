"""Every implementation against float64 and against exact integers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import bounds
from kernels.counting import Calls
from narrows import Factors
from narrows.kernels import BILINEAR_THREE, BILINEAR_TWO, KERNELS, LINEAR_TWO

# Own kernels have tests of their own in kernels/triton: the interpreter runs them slowly, and not in every dtype.
MATMULS = tuple(kernel for kernel in KERNELS if kernel.name in {"two", "three"})
# (x, a, y): shapes; b is a's with E = 10 where y is given.
SELF_SHAPES = {
    "one matrix": ((7, 12), (3, 12), None),
    "a batch": ((2, 7, 12), (3, 12), None),
    "two batch dimensions": ((2, 3, 5, 12), (3, 12), None),
    "heads share x": ((7, 12), (4, 3, 12), None),
    "heads share a batch": ((2, 1, 7, 12), (4, 3, 12), None),
    "x of every head": ((4, 7, 12), (4, 3, 12), None),
    "batch, x of every head": ((2, 4, 7, 12), (4, 3, 12), None),
    "one head against a batch": ((2, 7, 12), (1, 3, 12), None),
    "rank one": ((5, 12), (1, 12), None),
    "one token": ((1, 12), (3, 12), None),
    "no tokens": ((0, 12), (3, 12), None),
    "no tokens, heads": ((0, 12), (4, 3, 12), None),
    "an empty batch": ((0, 7, 12), (3, 12), None),
    "an empty batch, heads": ((0, 1, 7, 12), (4, 3, 12), None),
}
OTHER_SHAPES = {
    "rectangular": ((7, 12), (3, 12), (5, 10)),
    "y shared by a batch": ((2, 7, 12), (3, 12), (5, 10)),
    "x shared by a batch of y": ((7, 12), (3, 12), (2, 5, 10)),
    "heads": ((2, 1, 7, 12), (4, 3, 12), (2, 1, 5, 10)),
    "no other tokens": ((7, 12), (3, 12), (0, 10)),
}


def operands(shapes, dtype=torch.float32, seed=0):
    x_shape, a_shape, y_shape = shapes
    generator = torch.Generator().manual_seed(seed)
    width = x_shape[-1] if y_shape is None else y_shape[-1]
    make = lambda *size: torch.randn(size, generator=generator).to(dtype)  # noqa: E731
    y = None if y_shape is None else make(*y_shape)
    return make(*x_shape), Factors(make(*a_shape), make(*a_shape[:-1], width)), y


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kernel", [BILINEAR_THREE, BILINEAR_TWO], ids=lambda k: k.name)
@pytest.mark.parametrize("shapes", SELF_SHAPES.values(), ids=SELF_SHAPES)
def test_bilinear_with_itself_is_within_the_derived_bound(shapes, kernel, dtype):
    x, factors, _ = operands(shapes, dtype)
    scores = kernel.run(x, kernel.pack(factors))
    assert bounds.worst(scores, *bounds.bilinear(x, factors.a, x, factors.b, dtype)) <= 1
    assert scores.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shapes", OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_bilinear_with_another_is_within_the_derived_bound(shapes, dtype):
    x, factors, y = operands(shapes, dtype)
    scores = BILINEAR_THREE.run(x, factors, y)
    assert bounds.worst(scores, *bounds.bilinear(x, factors.a, y, factors.b, dtype)) <= 1


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shapes", SELF_SHAPES.values(), ids=SELF_SHAPES)
def test_linear_is_within_the_derived_bound(shapes, dtype, with_bias):
    x, factors, _ = operands(shapes, dtype)
    bias = torch.randn(12).to(dtype) if with_bias else None
    if with_bias and factors.a.ndim == 3:  # a separate addition: one more rounding
        exact, bound = bounds.linear(x, factors.a, factors.b, None, dtype)
        exact = exact + bias.double()
        bound = bound + bounds.UNIT[dtype] * (exact.abs() + bound)
    else:
        exact, bound = bounds.linear(x, factors.a, factors.b, bias, dtype)
    assert bounds.worst(LINEAR_TWO.run(x, factors, bias=bias), exact, bound) <= 1


def test_the_bound_catches_one_dropped_rank():
    x, factors, _ = operands(((7, 12), (3, 12), None))
    dropped = BILINEAR_THREE.run(x, factors.truncate(2))
    assert bounds.worst(dropped, *bounds.bilinear(x, factors.a, x, factors.b, torch.float32)) > 1
    dropped = LINEAR_TWO.run(x, factors.truncate(2))
    assert bounds.worst(dropped, *bounds.linear(x, factors.a, factors.b, None, torch.float32)) > 1


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(0, 40),
    width=st.integers(1, 40),
    rank=st.integers(1, 20),
    heads=st.integers(0, 3),
    keep=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_small_integers_give_the_exact_result(tokens, width, rank, heads, keep, seed):
    generator = torch.Generator().manual_seed(seed)
    lead = (heads,) if heads else ()
    draw = lambda *size: torch.randint(-1, 2, size, generator=generator).float()  # noqa: E731
    factors = Factors(draw(*lead, rank, width), draw(*lead, rank, width))
    x = draw(tokens, width)
    for kernel in MATMULS:
        packed = kernel.pack(factors).truncate(min(keep, rank))
        p = x.long() @ packed.a.long().mT
        exact = p @ packed.b.long() if kernel.kind == "linear" else p @ (x.long() @ packed.b.long().mT).mT
        assert torch.equal(kernel.run(x, packed).long(), exact), (kernel.kind, kernel.name)


@pytest.mark.parametrize("kernel", MATMULS, ids=lambda k: f"{k.kind}-{k.name}")
@pytest.mark.parametrize("shapes", SELF_SHAPES.values(), ids=SELF_SHAPES)
def test_out_receives_the_result_in_its_own_memory(shapes, kernel):
    x, factors, _ = operands(shapes)
    packed = kernel.pack(factors)
    expected = kernel.run(x, packed)
    out = torch.full_like(expected, torch.nan)
    address = out.data_ptr()
    result = kernel.run(x, packed, out=out)
    assert result is out
    assert out.data_ptr() == address
    assert torch.equal(out, expected)
    assert expected.is_contiguous()


@pytest.mark.parametrize("heads", [(), (3,)])
def test_out_receives_linear_with_a_bias(heads):
    x, factors, _ = operands(((7, 12), (*heads, 3, 12), None))
    bias = torch.randn(12)
    expected = LINEAR_TWO.run(x, factors, bias=bias)
    out = torch.full_like(expected, torch.nan)
    assert LINEAR_TWO.run(x, factors, bias=bias, out=out) is out
    assert torch.equal(out, expected)


@pytest.mark.parametrize("kernel", MATMULS, ids=lambda k: f"{k.kind}-{k.name}")
@pytest.mark.parametrize("shapes", [s for s in SELF_SHAPES.values() if 0 not in s[0]])
def test_rows_that_are_not_contiguous_change_nothing(shapes, kernel):
    x, factors, _ = operands(shapes)
    sparse = torch.stack((x, torch.full_like(x, torch.nan)), dim=-1)[..., 0]
    assert not sparse.is_contiguous()
    packed = kernel.pack(factors)
    if kernel.kind == "linear":
        reference = bounds.linear(x, factors.a, factors.b, None, torch.float32)
    else:
        reference = bounds.bilinear(x, factors.a, x, factors.b, torch.float32)
    assert bounds.worst(kernel.run(sparse, packed), *reference) <= 1


@pytest.mark.parametrize("rank", [3, 2, 1])
def test_a_truncated_pair_runs_without_a_copy(rank):
    for shapes in (SELF_SHAPES["one matrix"], SELF_SHAPES["a batch"]):
        x, factors, _ = operands(shapes)
        packed = factors.interleaved().truncate(rank)
        assert BILINEAR_TWO.pack(packed) is packed
        with Calls() as calls:
            BILINEAR_TWO.run(x, packed)
        assert (calls.matmuls, calls.copies) == (2, 0), calls.names


@pytest.mark.parametrize("shape", [(7, 12), (1, 7, 12), (2, 1, 7, 12)])
def test_heads_that_share_x_run_without_a_copy(shape):
    x, factors, _ = operands((shape, (4, 3, 12), None))
    packed = BILINEAR_TWO.pack(factors)
    with Calls() as calls:
        BILINEAR_TWO.run(x, packed)
    assert (calls.matmuls, calls.copies) == (2, 0), calls.names
