"""narrows.linear and narrows.bilinear compute what they say, on every shape and dtype."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import narrows
from kernels import bounds
from kernels.counting import Calls
from kernels.test_chains import OTHER_SHAPES, SELF_SHAPES, operands
from narrows import Factors
from narrows.errors import ImplementationError
from narrows.ops import _bilinear_op


@pytest.mark.parametrize("shapes", SELF_SHAPES.values(), ids=SELF_SHAPES)
@pytest.mark.parametrize("is_interleaved", [False, True])
@pytest.mark.parametrize("impl", ["auto", "two", "three"])
def test_bilinear_with_itself_is_within_the_derived_bound(shapes, impl, is_interleaved):
    x, factors, _ = operands(shapes)
    factors = factors.interleaved() if is_interleaved else factors
    scores = narrows.bilinear(x, factors, impl=impl)
    assert bounds.worst(scores, *bounds.bilinear(x, factors.a, x, factors.b, torch.float32)) <= 1


@pytest.mark.parametrize("shapes", OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_bilinear_with_another_is_within_the_derived_bound(shapes):
    x, factors, y = operands(shapes)
    scores = narrows.bilinear(x, factors, y)
    assert bounds.worst(scores, *bounds.bilinear(x, factors.a, y, factors.b, torch.float32)) <= 1


@pytest.mark.parametrize("impl", ["auto", "two"])
@pytest.mark.parametrize("shapes", SELF_SHAPES.values(), ids=SELF_SHAPES)
def test_linear_is_within_the_derived_bound(shapes, impl):
    x, factors, _ = operands(shapes)
    y = narrows.linear(x, factors, impl=impl)
    assert bounds.worst(y, *bounds.linear(x, factors.a, factors.b, None, torch.float32)) <= 1


def test_linear_takes_one_row_as_nn_linear_does():
    _, factors, _ = operands(((7, 12), (3, 12), None))
    x = torch.randn(12)
    y = narrows.linear(x, factors, torch.ones(12))
    assert bounds.worst(y, *bounds.linear(x, factors.a, factors.b, torch.ones(12), torch.float32)) <= 1


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(0, 9),
    width=st.integers(1, 9),
    rank=st.integers(1, 9),
    mask=st.sampled_from([None, "bool", "float"]),
    scale=st.sampled_from([None, 0.5, -2.0]),
    seed=st.integers(0, 99),
)
def test_scale_comes_before_the_mask_exactly(tokens, width, rank, mask, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randint(-2, 3, size, generator=generator).float()  # noqa: E731
    x, factors = draw(tokens, width), Factors(draw(rank, width), draw(rank, width))
    given_mask = {None: None, "bool": draw(1, tokens) > 0, "float": draw(tokens, 1)}[mask]
    expected = (x @ factors.a.mT) @ (x @ factors.b.mT).mT * (1.0 if scale is None else scale)
    if mask == "bool":
        expected = expected.masked_fill(~given_mask, -torch.inf)
    if mask == "float":
        expected = expected + given_mask
    for layout in (factors, factors.interleaved()):
        assert torch.equal(narrows.bilinear(x, layout, scale=scale, mask=given_mask), expected)


def test_auto_launches_two_for_interleaved_factors_and_three_otherwise():
    x, factors, _ = operands(((7, 12), (3, 12), None))
    interleaved = factors.interleaved()
    for given_factors, y, launches in (
        (factors, None, 3),
        (interleaved, None, 2),
        (interleaved.truncate(2), None, 2),
        (interleaved, x, 3),
    ):
        with Calls() as calls:
            # A dispatch mode sees narrows.bilinear as one operation; this is what that one runs.
            _bilinear_op.run_bilinear(x, given_factors.a, given_factors.b, y, None, None, None, False, "auto")
        assert calls.matmuls == launches


def test_a_dispatch_mode_sees_one_operation():
    x, factors, _ = operands(((7, 12), (3, 12), None))
    with Calls() as calls:
        narrows.bilinear(x, factors)
        narrows.linear(x, factors)
    assert calls.names == {"bilinear": 1, "linear": 1}


def test_a_truncated_view_is_the_prefix_of_the_ranks():
    x, factors, _ = operands(((7, 12), (5, 12), None))
    shorter = factors.truncate(2)
    copied = Factors(factors.a[:2].clone(), factors.b[:2].clone())
    assert torch.equal(narrows.linear(x, shorter), narrows.linear(x, copied))
    assert torch.equal(narrows.bilinear(x, shorter), narrows.bilinear(x, copied))


def test_meta_operands_give_a_meta_result():
    factors = Factors(torch.empty(4, 3, 12, device="meta"), torch.empty(4, 3, 12, device="meta"))
    x = torch.empty(2, 1, 7, 12, device="meta")
    scores, y = narrows.bilinear(x, factors, impl="two"), narrows.linear(x, factors)
    assert (scores.device.type, scores.shape) == ("meta", (2, 4, 7, 7))
    assert (y.device.type, y.shape) == ("meta", (2, 4, 7, 12))


def test_inference_mode_changes_nothing():
    x, factors, _ = operands(((7, 12), (3, 12), None))
    with torch.inference_mode():
        inside = narrows.bilinear(x, factors.interleaved())
    assert torch.equal(inside, narrows.bilinear(x, factors.interleaved()))
    assert inside.is_inference()


@pytest.mark.parametrize("impl", ["two", "three"])
def test_a_named_implementation_packs_but_never_falls_back(impl):
    x, factors, _ = operands(((7, 12), (3, 12), None))
    assert narrows.bilinear(x, factors, impl=impl).shape == (7, 7)
    with pytest.raises(ImplementationError, match=r"impl='two' cannot run this: .*U=7.*one of: three(, triton)?\."):
        narrows.bilinear(x, factors, x.clone(), impl="two")
    with pytest.raises(ImplementationError, match=r"impl='fast' is not an .* of linear.*one of: two(, triton)?\."):
        narrows.linear(x, factors, impl="fast")


def test_a_named_implementation_is_refused_on_meta_too():
    factors = Factors(torch.empty(3, 12, device="meta"), torch.empty(3, 12, device="meta"))
    x = torch.empty(7, 12, device="meta")
    with pytest.raises(ImplementationError, match="U=7 tokens of its own"):
        narrows.bilinear(x, factors, x, impl="two")
