"""Names, refusals and what each implementation says it launches."""

import pytest
import torch

from kernels.counting import Calls
from kernels.test_chains import MATMULS, OTHER_SHAPES, SELF_SHAPES, operands
from narrows import Problem
from narrows.errors import ImplementationError
from narrows.kernels import KERNELS, kernel, kernels_for


def problem(kind="bilinear", **changes):
    sizes = {"kind": kind, "tokens": 7, "in_features": 12, "out_features": 12, **changes}
    return Problem(**sizes)


def test_the_specification_comes_first():
    assert [k.name for k in kernels_for("bilinear")] == ["three", "two", "triton", "gluon"]
    assert [k.name for k in kernels_for("linear")] == ["two", "triton"]
    assert set(KERNELS) == {*kernels_for("bilinear"), *kernels_for("linear")}


@pytest.mark.parametrize("wanted", MATMULS, ids=lambda k: f"{k.kind}-{k.name}")
def test_a_kernel_is_found_by_name_and_does_not_refuse_its_own_problem(wanted):
    assert kernel(wanted.kind, wanted.name, problem(wanted.kind)) is wanted
    assert wanted.refuses(problem(wanted.kind)) == ""


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ImplementationError, match=r"impl='four' is not an implementation of bilinear.*: three, two, triton, gluon\."
    ):
        kernel("bilinear", "four")
    with pytest.raises(
        ImplementationError, match=r"impl='three' is not an implementation of linear.*one of: two, triton\."
    ):
        kernel("linear", "three")


def test_a_name_that_refuses_says_why_and_what_would_do():
    with pytest.raises(
        ImplementationError, match=r"needs Y = X; here y has U=5 tokens of its own.*one of: three(, triton)?\."
    ):
        kernel("bilinear", "two", problem(other_tokens=5))


@pytest.mark.parametrize("candidate", KERNELS, ids=lambda k: f"{k.kind}-{k.name}")
def test_a_kernel_refuses_the_other_kind(candidate):
    other = "linear" if candidate.kind == "bilinear" else "bilinear"
    assert (
        candidate.refuses(problem(other)) == f"{candidate.name} runs {candidate.kind} chains; this problem is {other}"
    )


@pytest.mark.parametrize("candidate", MATMULS, ids=lambda k: f"{k.kind}-{k.name}")
@pytest.mark.parametrize("shapes", SELF_SHAPES.values(), ids=SELF_SHAPES)
def test_launches_are_what_is_launched(shapes, candidate):
    x, factors, _ = operands(shapes)
    packed = candidate.pack(factors)
    with Calls() as calls:
        candidate.run(x, packed)
    assert calls.matmuls == candidate.launches(problem(candidate.kind)), calls.names


@pytest.mark.parametrize("shapes", OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_three_launches_three_with_another_y(shapes):
    x, factors, y = operands(shapes)
    with Calls() as calls:
        kernel("bilinear", "three").run(x, factors, y)
    assert calls.matmuls == 3


def test_the_count_sees_one_matmul_too_many():
    x = torch.ones(3, 3)
    with Calls() as calls:
        x @ x
        x.expand(2, 3, 3) @ x.expand(2, 3, 3)
    assert calls.matmuls == 2
