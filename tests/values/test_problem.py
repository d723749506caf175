"""What a problem is, and what it cannot be."""

from __future__ import annotations

import pytest
import torch

from narrows import Problem
from narrows.errors import DtypeError, InputError, ShapeError


def test_a_problem_is_read_off_tensors():
    problem = Problem.of(torch.zeros(2, 5, 8), torch.zeros(3, 8))
    assert (problem.kind, problem.tokens, problem.in_features, problem.out_features) == ("linear", 10, 8, 3)
    with_y = Problem.of(torch.zeros(5, 8), torch.zeros(4, 6, 8), torch.zeros(7, 6))
    assert (with_y.kind, with_y.columns, with_y.heads, with_y.is_self) == ("bilinear", 7, 4, False)


def test_the_same_problem_at_another_length_keeps_everything_else():
    problem = Problem("bilinear", 64, 32, 32, dtype="bf16")
    assert problem.at(128) == Problem("bilinear", 128, 32, 32, dtype="bfloat16")
    assert problem.at(128).columns == 128


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        ({"kind": "cubic"}, InputError, "kind='cubic' is not known. Use one of: linear, bilinear"),
        ({"in_features": 0}, ShapeError, "in_features=0 must be at least 1"),
        ({"in_features": 2.5}, InputError, r"in_features=2\.5 must be a whole number"),
        ({"tokens": True}, InputError, "tokens=True must be a whole number"),
        ({"tokens": -1}, ShapeError, "tokens=-1"),
        ({"out_features": 16}, ShapeError, r"Y = X needs a square weight, but it is \(16, 32\)"),
        ({"dtype": "int8"}, DtypeError, "dtype=int8 is not supported"),
    ],
)
def test_what_cannot_be_is_named_with_its_value(fields, error, match):
    with pytest.raises(error, match=match):
        Problem(**{"kind": "bilinear", "tokens": 8, "in_features": 32, "out_features": 32, **fields})


def test_a_width_that_does_not_fit_the_weight_shows_both():
    with pytest.raises(ShapeError, match=r"x \(5, 7\) has D=7, but weight \(3, 8\) has D=8"):
        Problem.of(torch.zeros(5, 7), torch.zeros(3, 8))
