"""What a call asks an implementation about: the sizes of its operands."""

from __future__ import annotations

import pytest
import torch

from narrows import Problem
from narrows.ops._problem import problem_of

A, B = torch.zeros(3, 12), torch.zeros(3, 10)
A_HEADS, B_HEADS = torch.zeros(4, 3, 12), torch.zeros(4, 3, 10)
CASES = {
    "rows": ("linear", (7, 12), A, B, None, {"tokens": 7}),
    "one row": ("linear", (12,), A, B, None, {"tokens": 1}),
    "a batch": ("linear", (2, 5, 7, 12), A, B, None, {"tokens": 70}),
    "another y": ("bilinear", (7, 12), A, B, (2, 5, 10), {"tokens": 7, "other_tokens": 10}),
    "heads": ("linear", (7, 12), A_HEADS, B_HEADS, None, {"tokens": 7, "heads": 4}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_problem_counts_all_rows_and_takes_the_features_of_the_factors(case):
    kind, x, a, b, y, sizes = case
    found = problem_of(kind, torch.zeros(x), a, b, None if y is None else torch.zeros(y))
    features = {"in_features": 12, "out_features": 10}
    assert found == Problem(kind=kind, dtype="float32", device="cpu", **features, **sizes)
