"""Peak memory beside what the tool itself foretells: of rows, of the process that measures, and of a compression."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soak.concurrency.children import stand_in
from soak.crashes.case import called, tests_module
from soak.crashes.child import Answer, run
from soak.resources.refused import TEXTS, status_bytes
from soak.resources.rows import forked_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from narrows import Experiment
    from narrows._values import Kind

TOKENS, FEATURES, RANKS = 4096, 256, (32, 128)
KINDS: tuple[Kind, ...] = ("linear", "bilinear")
WIDE = "wider"
BUDGET = "keep=0.8"


def row_ratios() -> dict[str, float]:
    """Return row -> measured peak / what was foretold, for rows of 64 MiB or more."""
    from narrows import _cost, kernels
    from narrows.bench._facts import thin_variants
    from narrows.bench._memory import peak_bytes
    from narrows.bench._point import Point, cost_of

    found = {}
    for kind in KINDS:
        asked = _experiment(kind, TOKENS * 8 if kind == "linear" else TOKENS)
        (tokens,) = asked.tokens
        text = json.dumps(_plain(asked))
        problem = asked.problem(tokens)
        for rank in (None, *RANKS):
            for variant in kernels.dense_associations(problem) if rank is None else thin_variants(kind, "cpu"):
                point = Point(tokens, rank, variant, "eager", "hot")
                cost: _cost.Cost = cost_of(point, problem)
                assert cost.memory_bytes >= 64 << 20, f"{point} takes {cost.memory_bytes} bytes"
                peak = peak_bytes(text, point.to_json())
                if peak is not None:
                    found[f"{kind}, {point}"] = peak / cost.memory_bytes
    return found


def parent_growth() -> int:
    """Return the bytes by which a process grew that measured scores of 64 MiB in a child of its own."""

    def work(folder: Path) -> None:
        from narrows.bench import _client, _sweep, run_experiment

        stand_in(_sweep, Worker=forked_worker(_client.Worker, {}))
        report = run_experiment(_experiment("bilinear", TOKENS), store=folder / "store.sqlite", minutes=60.0)
        assert {row.status for row in report.rows} == {"ok"}, report.rows

    return _grown(work)


def compression(folder: Path) -> tuple[int, int]:
    """Return (bytes by which a process grew that compressed, bytes that the dry run foretold).

    Args:
        folder: from `wide_made`.
    """

    def work(place: Path) -> None:
        code, said = called([*_words(folder, place), "--work", str(place / "work")])
        assert code == 0, said

    return _grown(work), foretold(folder)


def foretold(folder: Path) -> int:
    """Return the peak that `narrows compress --dry-run` prints."""

    def work(_: object) -> Answer:
        from narrows import ModelBudget, Recipe
        from narrows.models import _foresee

        stand_in(_foresee, PROBE_SECONDS=0.05)
        recipe = Recipe(context=CONTEXT, calibration_tokens=CALIBRATION)
        return Answer(0, str(_foresee.foreseen(folder / WIDE, ModelBudget(keep=0.8), recipe=recipe).peak_bytes))

    ended = run(work)
    assert ended.answer is not None
    assert ended.answer.code == 0, ended.answer.said
    return int(ended.answer.said)


CONTEXT, CALIBRATION = 64, 2048


def wide_made(place: Path) -> Path:
    """Return a folder with a model whose moments are larger than its weights, and texts."""
    folder = place / "wide"
    folder.mkdir()
    tiny = tests_module("tiny_models")
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 1, "num_attention_heads": 8}
    tiny.folder(tiny.llama(**sizes), folder / WIDE)
    lines = [json.dumps({"text": text}) for text in tiny.texts(40, 60)]
    (folder / TEXTS).write_text("\n".join(lines), encoding="utf-8")
    return folder


def _words(folder: Path, place: Path) -> list[str]:
    tokens = ["--context", str(CONTEXT), "--calibration-tokens", str(CALIBRATION)]
    where = [str(folder / WIDE), str(place / "out"), "--texts", str(folder / TEXTS)]
    return ["compress", *where, "--budget", BUDGET, *tokens]


def _experiment(kind: Kind, tokens: int) -> Experiment:
    from narrows import Experiment, WeightSource

    return Experiment(
        kind=kind,
        in_features=FEATURES,
        out_features=FEATURES,
        tokens=(tokens,),
        ranks=RANKS,
        weights=(WeightSource("gaussian", "gaussian"),),
    )


def _plain(asked: Experiment) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(asked)


def _grown(work: Callable[[Path], None]) -> int:
    """Return how far a forked child's resident memory rose while it did this."""

    def measured(_: object) -> Answer:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = status_bytes("VmRSS")
        with tempfile.TemporaryDirectory(prefix="soak-peak-") as folder:
            work(Path(folder).resolve())
        return Answer(0, str(status_bytes("VmHWM") - before))

    ended = run(partial(measured))
    assert ended.answer is not None
    assert ended.answer.code == 0, ended.answer.said
    return int(ended.answer.said)
