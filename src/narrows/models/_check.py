"""A compressed model beside its dense one: quality, a sample, speed, memory, and whether a budget is met.

Letters: N windows, T tokens a window.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from narrows import __version__
from narrows._machine import machine
from narrows._values import Workload, dtype_name
from narrows._values._check import Check, Timing
from narrows.errors import InputError
from narrows.models._calibrate_forward import quiet_model
from narrows.models._check_data import read_labelled, read_pairs
from narrows.models._check_inputs import open_model, open_tokenizer
from narrows.models._check_memory import added_bytes, memory_source
from narrows.models._check_pair import Pair
from narrows.models._check_quality import Reading
from narrows.models._check_sides import sides_of, weight_bytes
from narrows.models._check_text import check_text, context_of
from narrows.models._check_verdict import judge
from narrows.models._needs import need_scipy
from narrows.models._speed import check_workload, request, times

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from narrows._values import ModelBudget
    from narrows._values._check import SideName
    from narrows.models._speed import Request

    Progress = Callable[[str, int, int], None] | None

WINDOWS = 64
TOKENS = 512  # of the default workloads


def check(
    folder: str | Path | nn.Module,
    against: str | Path | nn.Module,
    *,
    texts: str | Path | Sequence[str] | None = None,
    windows: int = WINDOWS,
    workloads: Sequence[Workload] | None = None,
    budget: ModelBudget | None = None,
    tokenizer: Any = None,
    pairs: str | Path | None = None,
    labels: str | Path | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> Check:
    """Return what a compressed model loses and gains against its dense one, both measured here and now.

    A causal model: perplexity, KL and agreement on the same windows, paired by document, and a sample. An encoder:
    similarity of embeddings; Spearman's correlation and accuracy where `pairs` and `labels` are given. Both: time and
    peak memory at each workload and what is stored, beside dense with int8 weights and beside the factors as plain
    torch layers.

    Args:
        folder: what was compressed: a folder, or a loaded model.
        against: the dense model: a folder, or a loaded model.
        texts: a file, or documents; of the file that the model was calibrated on, the part that was kept for checks
            is read. None: that file, if it is still where it was.
        windows: of 512 tokens (or of what the model can read), drawn from different documents; for an encoder, how
            many documents.
        workloads: what is timed. None: those of the folder's plan; prefill and decode at 512 tokens without one.
        budget: what is judged. None: that of the folder's plan; nothing without one.
        tokenizer: for loaded models.
        pairs: a file of lines word1, word2 and score with tabs between.
        labels: a JSONL file of objects with "text" and "label".
        device: "cpu", "cuda" or "cuda:1", for folders; loaded models stay where they are.
        dtype: "float32", "bfloat16" or "float16", for folders; None: as the dense model was saved.
        seed: of the windows and of everything that is resampled.
        progress: called with (what, done, of).

    Raises:
        FileError: a folder or a file cannot be read, or is not what it should be.
        InputError: the two models do not fit together, or there is no text to read.
        NonFiniteError: a model gives NaN or Inf.
        ResourceError: transformers or scipy is not installed.
    """
    need_scipy("narrows check")
    if windows < 1:
        raise InputError(f"windows={windows} must be at least 1.")
    compressed = open_model(folder, device=device, dtype=dtype, is_compressed=True)
    dense = open_model(against, device=device, dtype=dtype, is_compressed=False)
    pair = Pair(dense, compressed)
    pair.check()
    wanted = _wanted(workloads, pair)
    for workload in wanted:
        check_workload(dense.model, workload)
    words, is_causal = open_tokenizer(tokenizer, against, folder), pair.kind == "causal"
    if is_causal and (pairs is not None or labels is not None):
        raise InputError(f"pairs and labels are for encoders; {type(dense.model).__name__} is judged by perplexity.")
    text = check_text(
        texts,
        compressed.manifest,
        words,
        is_causal=is_causal,
        tokens=context_of(dense.model),
        number=windows,
        seed=seed,
    )
    word_pairs = None if pairs is None else read_pairs(Path(pairs))
    lines = None if labels is None else read_labelled(Path(labels))
    found = _measured(pair, Reading(text, words, word_pairs, lines, seed, progress), wanted)
    judged = budget or (None if pair.plan is None else pair.plan.budget)
    if judged is None:
        return found
    both = found.side("dense"), found.side("narrows")
    return replace(found, budget=judged, judgements=judge(judged, *both, found.timings))


def _measured(pair: Pair, reading: Reading, workloads: Sequence[Workload]) -> Check:
    """Return everything but the verdict."""
    dense, compressed = pair.dense, pair.compressed
    disk_bytes: dict[SideName, int | None] = {"dense": dense.disk_bytes, "narrows": compressed.disk_bytes}
    with quiet_model(dense.model), quiet_model(compressed.model):
        models = pair.all_models()
        shown = {name: model for name, model in models.items() if isinstance(model, nn.Module)}
        sides = reading.quality(pair.kind, sides_of(models, pair.names, disk_bytes), shown)
        sample = reading.sample(dense.model, compressed.model) if pair.kind == "causal" else None
        timings = [one for workload in workloads for one in _timed(shown, workload, pair.device, reading)]
    here = machine(str(pair.device))
    return Check(
        model=dense.name,
        folder=compressed.name,
        kind=pair.kind,
        dtype=dtype_name(pair.dtype),
        device_name=here.name,
        fingerprint=here.fingerprint,
        version=__version__,
        text=reading.text.used,
        sides=tuple(sides.values()),
        timings=tuple(timings),
        sample=sample,
        budget=None,
        judgements=(),
        memory_source=memory_source(pair.device),
    )


def _wanted(asked: Sequence[Workload] | None, pair: Pair) -> tuple[Workload, ...]:
    """Return the workloads to time: those asked for, those of the plan, or prefill (and decode) at 512 tokens."""
    if asked is not None:
        return tuple(asked)
    if pair.plan is not None and pair.plan.workloads:
        return pair.plan.workloads
    tokens = min(TOKENS, context_of(pair.dense.model) - 1)
    prefill = Workload("prefill", tokens)
    return (prefill, Workload("decode", tokens)) if pair.kind == "causal" else (prefill,)


def _timed(
    models: Mapping[SideName, nn.Module], workload: Workload, device: torch.device, reading: Reading
) -> tuple[Timing, ...]:
    """Return times and peak memory of every side at one workload."""
    with torch.inference_mode():
        requests = {name: request(model, workload, seed=reading.seed) for name, model in models.items()}
    samples = times(requests, device, what=f"speed at {workload}", progress=reading.progress)
    return tuple(
        Timing(workload, name, samples[name], _peak(models[name], one, device)) for name, one in requests.items()
    )


@torch.inference_mode()
def _peak(model: nn.Module, one: Request, device: torch.device) -> int | None:
    one.prepare(1)
    added = added_bytes(one, device)
    return None if added is None else weight_bytes(model) + one.held_bytes + added
