"""Layers with options for tests of `allocate`: figures are given, not measured."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import HealthCheck, settings

from narrows._values import LayerOption, LayerOptions, ModelBudget, ModelPlan
from narrows.planning import allocate, menu

FEATURES = 64
ON_A_BUSY_MACHINE = settings(suppress_health_check=[HealthCheck.too_slow])  # drawing a model then takes a while


def dense(numbers=4096, time_ns=None):
    return LayerOption("dense", None, numbers, 2 * numbers, 0.0, time_ns)


def pivot(rank, numbers, damage, time_ns=None, is_faster=None):
    return LayerOption("pivot", rank, numbers, 2 * numbers, damage, time_ns, is_faster)


def layer(name, *options):
    return LayerOptions(name, FEATURES, FEATURES, options)


def chosen(options, other_ns=None, **limits) -> ModelPlan:
    """Return the plan within a budget of these limits."""
    return allocate(options, ModelBudget(**limits), dtype="float32", method="two-sided", other_ns=other_ns)


def forms(plan):
    """Return what each layer became: None for dense, else the rank."""
    return tuple(one.chosen.rank for one in plan.layers)


def keeps(choice, options, budget, other_ns):
    """Return whether a choice keeps a budget, as a plan's own figures say; times are whole numbers."""
    denses = [one.options[0] for one in options]
    if budget.keep is not None and sum(o.numbers for o in choice) / sum(o.numbers for o in denses) > budget.keep:
        return False
    if budget.max_bytes is not None and sum(one.bytes for one in choice) > budget.max_bytes:
        return False
    if budget.perplexity is not None and sum(one.damage for one in choice) > math.log1p(budget.perplexity):
        return False
    if budget.speedup is None:
        return True
    before, after = (other_ns + sum(one.time_ns for one in each) for each in (denses, choice))
    return before / after >= budget.speedup


def least_damage(options, budget, other_ns=None):
    """Return the least damage of all choices that keep a budget, by trying them all; None: there is none."""
    every = itertools.product(*(one.options for one in options))
    damages = [sum(one.damage for one in choice) for choice in every if keeps(choice, options, budget, other_ns)]
    return min(damages, default=None)


SHAPES = {
    "q_proj": (8192, 8192),
    "k_proj": (8192, 1024),
    "v_proj": (8192, 1024),
    "o_proj": (8192, 8192),
    "gate_proj": (8192, 28672),
    "up_proj": (8192, 28672),
    "down_proj": (28672, 8192),
}


def large_model(blocks=80, seed=0):
    """Return the options of a 70B-shaped model with drawn spectra: 560 layers, about 38 options each.

    Times of one shape and rank are the same in every block; a pivot form takes longer than its numbers say.
    """
    rng = np.random.default_rng(seed)
    noise = {}
    return [
        _large_layer(f"model.layers.{block}.{name}", D, E, rng, noise)
        for block in range(blocks)
        for name, (D, E) in SHAPES.items()
    ]


def _large_layer(name, D, E, rng, noise):
    spectrum = (np.arange(1, min(D, E) + 1) + rng.uniform(1, 50)) ** (-2 * rng.uniform(0.3, 1.4))
    tails = np.append(np.cumsum(spectrum[::-1])[::-1], 0.0) / spectrum.sum() * 10 ** rng.normal(-2, 0.7)
    options = [LayerOption("dense", None, D * E, 2 * D * E, 0.0, 2e-3 * D * E)]
    for form in ("low-rank", "pivot"):
        for rank in menu(D, E, form):
            numbers = rank * (D + E - (rank if form == "pivot" else 0))
            slower = noise.setdefault((D, E, form, rank), (1.15 if form == "pivot" else 1.0) * rng.normal(1.05, 0.03))
            time_ns = 2e-3 * numbers * slower + 3e4
            is_faster = bool(time_ns < 0.98 * 2e-3 * D * E)
            extra = 8 * E if form == "pivot" else 0
            options.append(
                LayerOption(form, rank, numbers, 2 * numbers + extra, float(tails[rank]), time_ns, is_faster)
            )
    return LayerOptions(name, D, E, tuple(options))
