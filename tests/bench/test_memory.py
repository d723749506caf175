"""Peak memory of one call, measured in a fresh process, against the formula."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import pytest

from bench.experiments import small
from narrows import _cost
from narrows.bench._client import Worker
from narrows.bench._point import Point

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize(("rank", "variant"), [(None, "left"), (64, "three"), (64, "two")])
def test_the_measured_peak_is_the_formula_and_little_more(rank, variant):
    """36 MiB held: a library's own workspace for packing may add 10 % and 12 MiB."""
    experiment = small(in_features=1024, out_features=1024, tokens=(2048,), ranks=(64,))
    point = Point(2048, rank, variant, "eager", "hot")
    problem = experiment.problem(2048)
    cost = _cost.dense_cost(problem, "left") if rank is None else _cost.thin_cost(problem, rank)
    with Worker() as worker:
        text = json.dumps(asdict(experiment))
        peak = worker.ask("peak", timeout=60, experiment=text, point=point.to_json())["bytes"]
        again = worker.ask("peak", timeout=60, experiment=text, point=point.to_json())["bytes"]
    assert 0.95 * cost.memory_bytes < peak < 1.1 * cost.memory_bytes + (12 << 20)
    assert abs(again - peak) < 4 << 20
