"""Factors that wait for a child that takes over: whole, or made again."""

from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import save_file

from narrows import Factors
from narrows.bench._kept_factors import keep_factors, kept_factors

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [(), (2,)])
def test_factors_come_back_as_they_were(tmp_path, dtype, heads):
    factors = Factors(torch.randn(*heads, 2, 3).to(dtype), torch.randn(*heads, 2, 4).to(dtype))
    keep_factors(tmp_path / "f.safetensors", factors)
    found = kept_factors(tmp_path / "f.safetensors", CPU)

    assert torch.equal(found.a, factors.a)
    assert torch.equal(found.b, factors.b)


def test_what_is_not_there_or_damaged_is_made_again(tmp_path):
    path = tmp_path / "f.safetensors"
    assert kept_factors(path, CPU) is None
    save_file({"a": torch.ones(1, 2), "b": torch.ones(1, 2)}, path)  # as an earlier version kept them
    assert kept_factors(path, CPU) is None
    keep_factors(path, Factors(torch.randn(2, 3), torch.randn(2, 4)))
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for place in random.Random(0).sample(range(start, len(data)), 20):  # noqa: S311 (no secret)
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        assert kept_factors(path, CPU) is None
    path.write_bytes(data[:-1])
    assert kept_factors(path, CPU) is None
