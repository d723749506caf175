"""What a value refuses, in full: which field, what it was, what to do."""

from __future__ import annotations

import re

import pytest
import torch

from narrows import Budget, Experiment, Factors, ModelBudget, Problem, WeightSource, Workload
from narrows._values import Certificate, Moments, PivotFactors
from narrows.errors import DeviceError, DtypeError, InputError, RankError, ShapeError

FACTORS = Factors(torch.ones(3, 12), torch.ones(3, 10))
SIZES = {"kind": "bilinear", "in_features": 32, "out_features": 32, "tokens": (8,), "ranks": (4,), "dtype": "float32"}
SOURCE = WeightSource("random", "gaussian")


def experiment(**fields):
    return Experiment(**{**SIZES, "weights": (SOURCE,), **fields})


def moments(inputs=(4, 4), mean=(4,), gradients=(3, 3), tokens=5):
    return Moments(torch.ones(inputs), torch.ones(mean), torch.ones(gradients), tokens)


def pivot(rows=(2, 4), rest=(3, 2), order=5, dtype=torch.float32):
    return PivotFactors(torch.ones(rows), torch.ones(rest, dtype=dtype), torch.arange(order))


CASES = {
    "a (3, 12) and b (2, 10) must be (R, D) and (R, E), or (H, R, D) and (H, R, E).": (
        ShapeError,
        lambda: Factors(torch.ones(3, 12), torch.ones(2, 10)),
    ),
    "a (0, 12) and b (0, 10) must have R, D and E of at least 1.": (
        ShapeError,
        lambda: Factors(torch.ones(0, 12), torch.ones(0, 10)),
    ),
    "a is torch.float32 and b is torch.float64: give both the same dtype.": (
        DtypeError,
        lambda: Factors(torch.ones(3, 12), torch.ones(3, 10).double()),
    ),
    "a is on cpu and b is on meta: move both to one device.": (
        DeviceError,
        lambda: Factors(torch.ones(3, 12), torch.ones(3, 10, device="meta")),
    ),
    "these factors carry no certificate: make them with factorize() to know their error.": (
        RankError,
        lambda: FACTORS.error(2),
    ),
    "rank=2: these factors (R=3) are not ordered, so a prefix is not the best rank-2 pair.": (
        RankError,
        lambda: Factors(FACTORS.a, FACTORS.b, is_ordered=False).truncate(2),
    ),
    "interleaved factors need D = E, but D=12, E=10.": (ShapeError, FACTORS.interleaved),
    "rank=3 is outside 0..2, the ranks this certificate knows.": (
        RankError,
        lambda: Certificate("exact", ((2.0, 1.0),), 2.5, 0.0).error(3),
    ),
    "inputs (4, 3) and mean (4,) must be (D, D) and (D,).": (ShapeError, lambda: moments(inputs=(4, 3))),
    "gradients (3, 2) must be (E, E).": (ShapeError, lambda: moments(gradients=(3, 2))),
    "tokens=0: moments need at least one token.": (ShapeError, lambda: moments(tokens=0)),
    "rows (2, 4), rest (3, 3) and order (5,) must be (R, D), (E - R, R) and (E,).": (
        ShapeError,
        lambda: pivot(rest=(3, 3)),
    ),
    "rows are torch.float32 and rest is torch.float64: give both the same dtype.": (
        DtypeError,
        lambda: pivot(dtype=torch.float64),
    ),
    "x () needs at least 1 dimension, weight (3, 8) needs 2 or 3.": (
        ShapeError,
        lambda: Problem.of(torch.ones(()), torch.ones(3, 8)),
    ),
    "tokens=-1, other_tokens=4 must not be negative.": (
        ShapeError,
        lambda: Problem("bilinear", -1, 8, 8, other_tokens=4),
    ),
    "kind='cubic' is not known. Use one of: linear, bilinear.": (InputError, lambda: experiment(kind="cubic")),
    "weights=() must name at least one weight.": (InputError, lambda: experiment(weights=())),
    "rank=33 is outside 1..32 = min(D=32, E=32).": (RankError, lambda: experiment(ranks=(33,))),
    "phase='chat' must be 'prefill' or 'decode'.": (InputError, lambda: Workload("chat", 8)),
    "tokens=0 and batch=2 must be at least 1.": (InputError, lambda: Workload("decode", 0, 2)),
    "weight=-1.5 must be a finite number > 0.": (InputError, lambda: Workload("decode", 8, 2, -1.5)),
    "workload 'decode:8=1.2.3': '1.2.3' is not a number.": (InputError, lambda: Workload.parse("decode:8=1.2.3")),
    "error=-0.5 must be a finite number >= 0 (0.01 is 1 %).": (InputError, lambda: Budget(error=-0.5)),
    "min_speedup=0 must be a finite number > 0 (1.2 is 20 % faster).": (InputError, lambda: Budget(min_speedup=0)),
    "max_bytes=0 must be > 0.": (InputError, lambda: Budget(max_bytes=0)),
    "perplexity=-0.01 must be a finite number >= 0 (0.01 is 1 %).": (InputError, lambda: ModelBudget(perplexity=-0.01)),
    "keep=1.5 must be above 0 and at most 1 (0.9 keeps 90 % of the numbers).": (
        InputError,
        lambda: ModelBudget(keep=1.5),
    ),
    "speedup=-2 must be a finite number > 0 (1.2 is 20 % faster).": (InputError, lambda: ModelBudget(speedup=-2)),
    "max_bytes=-7 must be > 0.": (InputError, lambda: ModelBudget(max_bytes=-7)),
    "the budget is empty: give at least one of perplexity, keep, speedup, max_bytes.": (InputError, ModelBudget),
}


@pytest.mark.parametrize("text", CASES)
def test_a_value_that_cannot_be_is_refused_with_what_it_was(text):
    error, make = CASES[text]
    with pytest.raises(error, match=re.escape(text)):
        make()
