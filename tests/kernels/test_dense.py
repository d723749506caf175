"""The dense chain in each order."""

import pytest
import torch

from kernels.counting import Calls
from narrows import Problem
from narrows.errors import InputError
from narrows.kernels import dense_associations, dense_launches, dense_run

SHAPES = [
    ((7, 12), (10, 12), (5, 10)),
    ((2, 7, 12), (10, 12), (2, 5, 10)),
    ((7, 12), (3, 10, 12), (5, 10)),
    ((2, 1, 7, 12), (3, 10, 12), (2, 1, 5, 10)),
    ((0, 12), (10, 12), (5, 10)),
]

ANY = Problem("linear", 7, 12, 10)


def test_associations_follow_the_kind_and_how_the_weight_came():
    sizes = {"tokens": 7, "in_features": 12, "out_features": 12}
    assert dense_associations(Problem("linear", **sizes)) == ("linear",)
    assert dense_associations(Problem("bilinear", **sizes)) == ("left", "right")
    assert dense_associations(Problem("bilinear", **sizes, given_rank=3)) == ("left", "right", "given")


@pytest.mark.parametrize("association", ["left", "right", "linear"])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_small_integers_give_the_exact_result_and_out_receives_it(shapes, association):
    generator = torch.Generator().manual_seed(0)
    x, weight, y = (torch.randint(-1, 2, shape, generator=generator).float() for shape in shapes)
    exact = x.long() @ weight.long().mT
    exact = exact if association == "linear" else exact @ y.long().mT
    with Calls() as calls:
        result = dense_run(association, x, weight, y)
    assert torch.equal(result.long(), exact)
    assert calls.matmuls == dense_launches(association, ANY)
    out = torch.full_like(result, torch.nan).contiguous()
    assert dense_run(association, x, weight, y, out=out) is out
    assert torch.equal(out.long(), exact)


@pytest.mark.parametrize("association", ["left", "right"])
def test_without_y_both_sides_are_x(association):
    x, weight = torch.randint(-1, 2, (7, 12)).float(), torch.randint(-1, 2, (12, 12)).float()
    assert torch.equal(dense_run(association, x, weight), x @ weight.mT @ x.mT)


def test_an_association_that_cannot_run_is_named():
    with pytest.raises(InputError, match="association='given' cannot be run here. Use one of: linear, left, right"):
        dense_run("given", torch.ones(2, 2), torch.ones(2, 2))
    with pytest.raises(InputError, match="association='middle'"):
        dense_launches("middle", ANY)
