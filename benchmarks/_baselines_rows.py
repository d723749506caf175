"""Rows of the quality benchmark: every published method, and ours."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from _baselines import by_loss, kept, kinds, rank_at, uniform
from _baselines_model import compared
from _baselines_names import LEMS, OURS, UNIFORM
from _baselines_run import Run, say, step
from _baselines_search import searched

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from _baselines import Factored, Ranks
    from _baselines_search import Choice

    Row = dict[str, Any]

FEWEST_WINDOWS = 8  # that compress_ measures its choice on; nothing is decided by it for a budget of numbers


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one method did with a model.

    Attributes:
        losses: of every token of each check text.
        kept: numbers in place of the block linears over the dense ones'.
        by_kind: the same for all layers of one kind.
        dense_layers: that stayed dense.
        more: what only this method has.
    """

    losses: Mapping[str, Tensor]
    kept: float
    by_kind: Mapping[str, float]
    dense_layers: int
    more: Mapping[str, Any] = field(default_factory=dict)


def measured(
    arguments: argparse.Namespace, seed: int, todo: Sequence[tuple[int, str, float]], store: Path
) -> Iterator[Row]:
    """Yield the rows of a seed that are missing, one after the other.

    Args:
        arguments: of the command line.
        todo: (seed, method, keep).
        store: a folder for moments.
    """
    run = Run(arguments, seed, store)
    for method in dict.fromkeys(method for _, method, _ in todo):
        keeps = [keep for _, own, keep in todo if own == method]
        began = time.perf_counter()
        for keep, outcome in zip(keeps, outcomes(run, method, keeps), strict=True):
            yield row(run, method, keep, outcome, began)
            began = time.perf_counter()


def outcomes(run: Run, method: str, keeps: Sequence[float]) -> Iterator[Outcome]:
    """Yield what a method does at each share."""
    if method == "dense":
        yield Outcome(run.dense_losses, 1.0, {}, len(run.layers.shapes))
    elif method in OURS:
        for keep in keeps:
            yield ours(run, method, keep)
    else:
        yield from baseline(run, method, keeps)


def baseline(run: Run, method: str, keeps: Sequence[float]) -> Iterator[Outcome]:
    """Yield what a published method does; its layers are factorised, and probed, once for all shares."""
    factored = run.factored(method)
    options = run.choices(method, factored) if method in LEMS else {}
    shapes = run.layers.shapes
    for keep in keeps:
        ranks = ranks_of(run, method, keep, factored, options)
        weights = {name: factored[name].weight(rank) for name, rank in ranks.items() if rank is not None}
        with run.layers.replaced(weights):
            losses = run.losses(run.model)
        by_kind = {kind: kept({name: shapes[name] for name in names}, ranks) for kind, names in kinds(shapes).items()}
        yield Outcome(losses, kept(shapes, ranks), by_kind, list(ranks.values()).count(None))


def ranks_of(
    run: Run, method: str, keep: float, factored: Mapping[str, Factored], options: Mapping[str, list[Choice]]
) -> Ranks:
    """Return the ranks that a published method gives."""
    shapes = run.layers.shapes
    if method in LEMS:
        return searched(shapes, options, keep)
    if method in UNIFORM:
        return uniform(shapes, keep)
    tokens = run.calibration.numel()
    tails = {name: math.sqrt(tokens) * factored[name].tail(rank_at(shapes[name], keep)) for name in shapes}
    return by_loss(shapes, keep, tails)


def ours(run: Run, method: str, keep: float) -> Outcome:
    """Return what narrows does: `compress_` on a copy, from the same moments, evaluated with its own modules."""
    from narrows._values import ModelBudget
    from narrows.models._check_sides import shared_copy
    from narrows.models._compress import compress_
    from narrows.models._recipe import Recipe

    _ = run.moments  # kept in the store, where compress_ finds them
    autocast = run.arguments.autocast
    recipe = Recipe(
        calibration_tokens=run.arguments.calibration_tokens,
        selection_tokens=FEWEST_WINDOWS * run.arguments.context,
        context=run.arguments.context,
        seed=run.seed,
        autocast=None if autocast == "none" else autocast,
        **OURS[method],
    )
    model = shared_copy(run.model)
    made = compress_(
        model,
        ModelBudget(keep=keep),
        documents=run.documents,
        tokenizer=run.tokenizer,
        recipe=recipe,
        store=run.folder,
        progress=step,
    )
    layers = {one.layer: one for one in made.plan.layers}
    by_kind = {
        kind: sum(layers[name].chosen.numbers for name in names) / sum(layers[name].dense.numbers for name in names)
        for kind, names in kinds(layers).items()
    }
    forms = [one.chosen.form for one in made.plan.layers]
    more: dict[str, Any] = {"predicted_damage": made.plan.damage, "pivot_layers": forms.count("pivot")}
    more["shared_layers"] = sum(bool(one.chosen.stack) for one in made.plan.layers)
    if made.recovery is not None:
        more["recovery"] = asdict(made.recovery)
    return Outcome(run.losses(model), made.plan.kept, by_kind, forms.count("dense"), more)


def row(run: Run, method: str, keep: float, outcome: Outcome, began: float) -> Row:
    """Return one row, and say it; `began` is when it was begun, on the performance counter."""
    texts = {name: compared(own, run.dense_losses[name], run.check[name]) for name, own in outcome.losses.items()}
    said = ", ".join(f"{name} {text['perplexity']:.4g}" for name, text in texts.items())
    say(f"seed {run.seed}, {method} at {keep}: {said}")
    return {
        "seed": run.seed,
        "method": method,
        "keep": keep,
        "kept": outcome.kept,
        "kept_by_kind": dict(outcome.by_kind),
        "dense_layers": outcome.dense_layers,
        "layers": len(run.layers.shapes),
        **outcome.more,
        "texts": texts,
        "seconds": round(time.perf_counter() - began, 1),
    }
