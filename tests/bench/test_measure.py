"""`narrows.measure`: what it is given is checked before a process starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from narrows import Problem, measure
from narrows.bench import _measure
from narrows.errors import DeviceError, DtypeError, InputError, NonFiniteError, RankError

PROBLEM = Problem("linear", 8, 48, 32)
WEIGHT = torch.ones(32, 48)


@pytest.fixture(autouse=True)
def never_starts(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a run was started")

    monkeypatch.setattr(_measure, "run_experiment", fail)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"ranks": 4}, InputError, r"ranks=4 must be a sequence of whole numbers, e\.g\. \(64, 128\)"),
        ({"ranks": (4.5,)}, InputError, r"ranks=\(4\.5,\) must be a sequence of whole numbers"),
        ({"ranks": ()}, RankError, r"rank=0 is outside 1\.\.32"),
        ({"ranks": (33,)}, RankError, r"rank=33 is outside 1\.\.32 = min\(D=48, E=32\)"),
        ({"tokens": 8}, InputError, "tokens=8 must be a sequence of whole numbers"),
        ({"tokens": (0,)}, InputError, r"tokens=\[0\] must name at least one length, each >= 1"),
        ({"modes": ("fast",)}, InputError, r"modes=\('fast',\) must name at least one of eager, graph"),
        ({"caches": ()}, InputError, r"caches=\(\) must name at least one of hot, cold"),
        ({"seed": 1.5}, InputError, r"seed=1\.5 must be a whole number within 0\.\."),
        ({"weight": [[1.0]]}, InputError, "weight is a list: give a plain"),
        ({"weight": WEIGHT.int()}, DtypeError, r"weight is torch\.int32"),
        ({"weight": WEIGHT.to(torch.complex64)}, DtypeError, r"weight is torch\.complex64"),
        ({"weight": WEIGHT.to("meta")}, DeviceError, "weight is on the meta device"),
        ({"weight": WEIGHT * torch.nan}, NonFiniteError, r"weight \(32, 48\) holds 1536 NaN and 0 Inf"),
        ({"weight": WEIGHT.T}, InputError, r"weight \(48, 32\) must be \(E, D\) = \(32, 48\)"),
    ],
)
def test_a_wrong_argument_is_named_before_a_run_starts(changes, error, text):
    with pytest.raises(error, match=text):
        measure(PROBLEM, **{"ranks": (4,), **changes})


def test_heads_are_not_dropped_in_silence():
    with pytest.raises(InputError, match="problem has heads=2, given_rank=None: a product is measured from files"):
        measure(Problem("linear", 8, 48, 32, heads=2), ranks=(4,))


def test_numpy_numbers_are_whole_numbers():
    with pytest.raises(AssertionError, match="a run was started"):
        measure(PROBLEM, ranks=np.array([4, 8]), tokens=np.array([8]))


def test_minutes_must_be_finite(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"minutes=inf must be a finite number > 0"):
        measure(PROBLEM, ranks=(4,), minutes=float("inf"))
