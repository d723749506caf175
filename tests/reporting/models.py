"""A model's plan, frontier and measured points for tests of its page: figures are given, not measured."""

from __future__ import annotations

from dataclasses import replace

from narrows._values import ModelBudget, ModelPoint, Workload
from narrows.planning import allocate, model_frontier
from planning.layers import large_model

OTHER_NS = 2e7
LIMITS = ModelBudget(keep=0.8, speedup=1.01)


def make_plan(options, budget=LIMITS, **changes):
    """Return the plan of these options within a budget."""
    facts = {"dtype": "bfloat16", "method": "two-sided", "other_ns": OTHER_NS, "device_name": "a device"}
    workloads = [Workload.parse("prefill:2048x1")]
    return allocate(options, budget, **(facts | {"workloads": workloads} | changes))


def make_options(blocks=6):
    """Return layers whose damages are large enough to be seen."""
    return [
        replace(one, options=tuple(replace(o, damage=60 * o.damage) for o in one.options))
        for one in large_model(blocks=blocks)
    ]


def make_points(options):
    return model_frontier(options, points=25, other_ns=OTHER_NS)


def make_measured(plan, points):
    """Return dense, int8, the plan and two smaller choices as if they had been measured."""
    dense_bytes = points[0].num_bytes
    half, small = points[6], points[12]
    return (
        ModelPoint("dense", 1.0, dense_bytes, 1.0, 0.99, 1.01, 23.39, 22.9, 23.9),
        ModelPoint("int8", 1.0, dense_bytes // 2, 0.96, 0.94, 0.97, 23.44, 22.95, 23.95, "weights in 8 bits"),
        ModelPoint("keep 0.8", plan.kept, plan.num_bytes, 1.12, 1.1, 1.14, 25.1, 24.6, 25.7),
        ModelPoint("keep 0.75", half.kept, half.num_bytes, 1.21, 1.18, 1.23, 26.3, 25.6, 27.1),
        ModelPoint("keep 0.5", small.kept, small.num_bytes, 1.19, 1.17, 1.2, 34.0, 33.0, 35.5),
    )
