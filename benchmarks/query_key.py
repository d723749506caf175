# ruff: noqa: D400 (the first line is the question)
"""How much of the scores do narrow queries and keys lose?

Scores before the softmax of real layers on Wikipedia text, in windows of 512 tokens; calibration and test documents
are disjoint, two seeds divide them. all-MiniLM-L6-v2: all 6 layers, all pairs of tokens in a window. SmolLM2-135M:
every third layer, each token with itself and those before it, turned by their real positions. The error is
||S' - S|| / ||S|| over all heads of a layer; "shape" is the same after each row's mean is taken off both, which the
softmax does not see. A ratio is the mean error over layers / that of data-aware separate truncation at the same width,
with a 95 % bootstrap interval over layers.

    without positions    heads of width R
    projections          heads keep their width, the maps to them have rank R (queries and keys; keys alone)
    widths               heads of width R under rotary positions, against truncated projections of rank R

What an encoder's embeddings lose by it: word_similarity.py. What it buys in a whole model: attention_model.py.

    python benchmarks/query_key.py                some minutes on two cores; needs models/ (make models)
    python benchmarks/query_key.py --output -
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import narrows
from _query_key_methods import KEY_PROJECTIONS, PROJECTIONS, WIDTHS, WITHOUT_POSITIONS, Heads, Narrow
from narrows.models._attention import AttentionWidths, attention_inputs, attention_layers
from narrows.models._calibrate import calibrate
from narrows.models._match import targets
from narrows.models._texts import read_documents, split, windows
from narrows.models.families import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


MODELS = Path(__file__).parents[1] / "models"
TEXT = MODELS / "texts" / "wikipedia.jsonl"
OUTPUT = Path(__file__).parent / "results" / "query-key-cpu.json"
SEEDS = (0, 1)
WINDOW, CALIBRATED, TESTED = 512, 24, 4
EVERY = 3  # of SmolLM2's 30 layers
BASELINE = "data-aware separate"
NARROWEST = AttentionWidths(query_key=2)
RESAMPLES = 2000

Question = tuple[str, dict[str, Any], tuple[int, ...]]
MINILM: tuple[Question, ...] = (("without positions", WITHOUT_POSITIONS, (24, 16, 8)),)
SMOLLM2: tuple[Question, ...] = (
    ("projections", PROJECTIONS, (48, 32, 16)),
    ("key projections", KEY_PROJECTIONS, (48, 32, 16)),
    ("widths", {BASELINE: PROJECTIONS[BASELINE], **WIDTHS}, (48, 32, 16)),
)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[1])
    parser.add_argument("--output", default=str(OUTPUT), help='JSON to write; "-" writes none')
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many divisions of the documents")
    arguments = parser.parse_args()
    began, seeds = time.perf_counter(), SEEDS[: arguments.seeds]
    rows = [row for seed in seeds for row in (*minilm(seed), *smollm2(seed))]
    record = {
        "question": (__doc__ or "").splitlines()[0],
        "machine": asdict(narrows.machine()),
        "window": WINDOW,
        "calibrated_tokens": WINDOW * CALIBRATED,
        "tested_tokens": WINDOW * TESTED,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": narrows.__version__,
        "seconds": round(time.perf_counter() - began, 1),
        "summary": summary(rows),
        "rows": rows,
    }
    show(record)
    if arguments.output != "-":
        Path(arguments.output).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Read:
    """A model, moments of its attentions' inputs, and test windows."""

    model: Any
    moments: Any
    tested_NT: torch.Tensor


def read(name: str, seed: int) -> Read:
    """Return a model calibrated on some documents, and windows of others."""
    from transformers import AutoModel, AutoTokenizer

    folder = MODELS / name
    if not TEXT.exists() or not (folder / "config.json").exists():
        raise SystemExit(f"{MODELS} lacks models or texts: run `make models` first.")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    parts = split(read_documents(TEXT), seed=seed)
    calibrated = windows(parts.calibration, tokenizer, tokens=WINDOW, number=CALIBRATED, seed=seed)
    tested = windows(parts.check, tokenizer, tokens=WINDOW, number=TESTED, seed=seed)
    names = attention_inputs(model, NARROWEST)
    chosen = targets(model, lambda _, one: one in names)
    return Read(model, calibrate(model, calibrated.ids_NT, chosen, gradients=False), tested.ids_NT)


def minilm(seed: int) -> Iterator[dict[str, object]]:
    """Yield the rows of all-MiniLM-L6-v2."""
    given = read("minilm", seed)
    yield from measured("minilm", seed, given, dict(attention_layers(given.model)), MINILM)


def smollm2(seed: int) -> Iterator[dict[str, object]]:
    """Yield the rows of SmolLM2-135M."""
    given = read("smollm2", seed)
    every = list(attention_layers(given.model))[::EVERY]
    yield from measured("smollm2", seed, given, dict(every), SMOLLM2)


def measured(
    model: str, seed: int, given: Read, places: dict[str, nn.Module], questions: tuple[Question, ...]
) -> Iterator[dict[str, object]]:
    """Yield one row for each layer, question, method and width."""
    inputs = layer_inputs(given, places)
    for name, module in places.items():
        began = time.perf_counter()
        family = family_of(module)
        assert family is not None
        moments = given.moments[f"{name}.{family.layers[0]}"]
        heads = Heads(family.read(module), moments, _frequencies(family, given.model, module), WINDOW)
        judge = Judge(heads, inputs[name])
        for question, methods, widths in questions:
            for width in widths:
                for method, make in methods.items():
                    narrow = make(heads, width)
                    error, shape = judge.errors(narrow)
                    yield {
                        "model": model,
                        "seed": seed,
                        "layer": name,
                        "question": question,
                        "width": width,
                        "method": method,
                        "error": error,
                        "shape_error": shape,
                        "predicted": narrow.predicted,
                    }
        print(f"{model}, seed {seed}: {name} in {time.perf_counter() - began:.1f} s", flush=True)


@torch.no_grad()
def layer_inputs(given: Read, places: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Return what enters each attention, (windows, tokens, D)."""
    seen: dict[str, torch.Tensor] = {}
    hooks = []
    for name, module in places.items():
        family = family_of(module)
        assert family is not None
        first = module.get_submodule(family.layers[0])
        hooks.append(first.register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0]})))
    given.model(input_ids=given.tested_NT)
    for hook in hooks:
        hook.remove()
    return seen


class Judge:
    """The scores of one layer on test windows, and how far others are from them."""

    @torch.no_grad()
    def __init__(self, heads: Heads, x_NTD: torch.Tensor) -> None:
        self.heads = heads
        dense, self.T = heads.dense, x_NTD.shape[1]
        self.query, self.key = (
            torch.nn.functional.linear(x_NTD, part.weight, part.bias).double().view(*x_NTD.shape[:2], number, -1)
            for part, number in ((dense.query, dense.heads), (dense.key, dense.groups))
        )
        every = None if heads.frequencies is None else heads.frequencies.expand(dense.groups, -1)
        self.seen = torch.ones(self.T, self.T).tril() if dense.is_causal else torch.ones(self.T, self.T)
        eye = torch.eye(self.key.shape[-1], dtype=torch.float64)
        whole = Narrow(eye.expand(dense.heads, -1, -1), eye.expand(dense.groups, -1, -1), every)
        self.scores = [self._scores(whole, head) for head in range(dense.heads)]
        self.norms = [sum(float((f(s) ** 2).sum()) for s in self.scores) for f in (_same, self._shape)]

    @torch.no_grad()
    def errors(self, narrow: Narrow) -> tuple[float, float]:
        """Return the relative error of the scores, and of their shape."""
        lost = [0.0, 0.0]
        for head, scores in enumerate(self.scores):
            change = self._scores(narrow, head) - scores
            lost[0] += float((change**2).sum())
            lost[1] += float((self._shape(change) ** 2).sum())
        first, second = ((part / norm) ** 0.5 for part, norm in zip(lost, self.norms, strict=True))
        return first, second

    def _scores(self, narrow: Narrow, head: int) -> torch.Tensor:
        """Return one query head's scores, (windows, T, T) float32, 0 where nothing is seen."""
        group = head // self.heads.share
        query, key = self.query[:, :, head] @ narrow.query[head].mT, self.key[:, :, group] @ narrow.key[group].mT
        query = query if narrow.query_offset is None else query + narrow.query_offset[head]
        key = key if narrow.key_offset is None else key + narrow.key_offset[group]
        if narrow.frequencies is not None:
            angles = torch.arange(self.T)[:, None] * narrow.frequencies[group]
            query, key = _turned(query, angles), _turned(key, angles)
        return query.float() @ key.float().mT * self.seen

    def _shape(self, scores: torch.Tensor) -> torch.Tensor:
        """Return scores less the mean of each row, over what it sees."""
        mean = scores.sum(-1, keepdim=True) / self.seen.sum(-1, keepdim=True)
        return (scores - mean) * self.seen


def _same(scores: torch.Tensor) -> torch.Tensor:
    return scores


def _turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=-1)


def _frequencies(family: Any, model: nn.Module, module: nn.Module) -> torch.Tensor | None:
    found = family.frequencies(model, module)
    return None if found is None else found.double()


def summary(rows: list[dict[str, Any]]) -> list[dict[str, object]]:
    """Return for each model, question, width and method the mean errors over layers and seeds, and the ratio."""
    keys = dict.fromkeys((row["model"], row["question"], row["width"], row["method"]) for row in rows)
    return [_summary_line(rows, *key) for key in keys]


def _summary_line(rows: list[dict[str, Any]], model: str, question: str, width: int, method: str) -> dict[str, object]:
    def by_layer(wanted: str) -> dict[tuple[str, int], dict[str, Any]]:
        here = (model, question, width, wanted)
        return {
            (row["layer"], row["seed"]): row
            for row in rows
            if (row["model"], row["question"], row["width"], row["method"]) == here
        }

    mine, base = by_layer(method), by_layer(BASELINE) or by_layer("data-aware")
    predicted = [row["predicted"] for row in mine.values()]
    return {
        "model": model,
        "question": question,
        "width": width,
        "method": method,
        "error": statistics.mean(row["error"] for row in mine.values()),
        "shape_error": statistics.mean(row["shape_error"] for row in mine.values()),
        "predicted": None if None in predicted else statistics.mean(predicted),
        "ratio": ratio(mine, base, "error"),
        "shape_ratio": ratio(mine, base, "shape_error"),
        "layers": len({layer for layer, _ in mine}),
    }


def ratio(mine: dict[Any, dict[str, Any]], base: dict[Any, dict[str, Any]], field: str) -> dict[str, float]:
    """Return mean error / mean error of the baseline, and the 95 % bootstrap interval over layers."""
    layers = sorted({layer for layer, _ in mine})
    pairs = np.array(
        [[sum(rows[key][field] for key in mine if key[0] == layer) for rows in (mine, base)] for layer in layers]
    )
    drawn = pairs[np.random.default_rng(0).integers(0, len(pairs), (RESAMPLES, len(pairs)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    value = pairs[:, 0].sum() / pairs[:, 1].sum()
    return {"value": float(value), "low": float(low), "high": float(high)}


def show(record: dict[str, Any]) -> None:
    """Print the summary."""
    print(
        "\nmodel    question           width  method                     error  predicted  ratio [95 %]          shape"
    )
    for line in record["summary"]:
        predicted = "" if line["predicted"] is None else f"{line['predicted']:.3f}"
        found = line["ratio"]
        print(
            f"{line['model']:8} {line['question']:18} {line['width']:5}  {line['method']:24} {line['error']:7.3f} "
            f"{predicted:>10}  {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]  "
            f"{line['shape_error']:.3f}"
        )


if __name__ == "__main__":
    main()
