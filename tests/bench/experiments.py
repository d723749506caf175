"""Small experiments that run in a second."""

from __future__ import annotations

from narrows import Experiment, WeightSource

GAUSSIAN = WeightSource("gaussian", "gaussian")
PRODUCT = WeightSource("product", "product", inner=16)


def small(**changes) -> Experiment:
    fields = {
        "kind": "bilinear",
        "in_features": 64,
        "out_features": 64,
        "tokens": (16, 32),
        "ranks": (4, 16),
        "weights": (GAUSSIAN,),
    }
    return Experiment(**{**fields, **changes})
