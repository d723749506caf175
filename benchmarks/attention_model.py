# ruff: noqa: D400 (the first line is the question)
"""What do narrow heads buy and cost in a whole model: time, bytes of the cache, perplexity, by length?

SmolLM2-135M, its heads narrowed after calibration on 24 windows of 512 tokens of Wikipedia, averaged at the longest
length asked for. For each length:

    prefill      one forward pass over a prompt of that length, logits of the last token only
    decode       one more token after a cache of that length
    cache        bytes of keys and values of one sequence
    perplexity   of windows of that length from other documents, the same for every variant

A round takes one sample of each variant in turn; a speedup is dense time / time by round, its median with a 99 %
interval. Widths are QUERY_KEY:VALUE of 64. Dense is the model as transformers runs it.

    python benchmarks/attention_model.py                                            a CPU: tens of minutes on two cores
    python benchmarks/attention_model.py --device cuda --dtype bfloat16 --lengths 512,2048,8192 --batch 16
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import narrows
from _gpu import command, save
from narrows._machine import conditions
from narrows._stats import paired_ratio
from narrows.models._attention import AttentionWidths, attention_, attention_inputs
from narrows.models._calibrate import calibrate
from narrows.models._match import targets
from narrows.models._texts import read_documents, split, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODELS = Path(__file__).parents[1] / "models"
TEXT = MODELS / "texts" / "wikipedia.jsonl"
OUTPUT = Path(__file__).parent / "results" / "attention-model-cpu.json"
CALIBRATED, WINDOW = 24, 512
HEAD = 64
WARM_UP = 2
SAMPLE_S = 0.2  # a sample repeats a call until it is this long


@dataclass(frozen=True)
class Variant:
    """One model to compare.

    Attributes:
        name: "dense" or its widths.
        model: ready to run.
        errors: mean expected error over layers of the scores and of what heads add.
    """

    name: str
    model: Any
    errors: dict[str, float]


@dataclass(frozen=True)
class Work:
    """What is asked of every variant at one length."""

    length: int
    batch: int
    rounds: int
    device: str
    ids_NT: torch.Tensor


def main() -> None:
    """Measure, print and record."""
    arguments = parsed()
    began = time.perf_counter()
    lengths = tuple(int(part) for part in arguments.lengths.split(","))
    parts = split(read_documents(TEXT), seed=0)
    made, tokenizer = variants(arguments, parts.calibration, max(lengths))
    before = conditions(arguments.device)
    rows = []
    for length in lengths:
        number = max(1, arguments.tokens // length)
        ids_NT = windows(parts.check, tokenizer, tokens=length, number=number, seed=0).ids_NT
        work = Work(length, arguments.batch, arguments.rounds, arguments.device, ids_NT.to(arguments.device))
        rows += list(measured(made, work))
    record = {
        "question": (__doc__ or "").splitlines()[0],
        "command": command(),
        "machine": asdict(narrows.machine(arguments.device)),
        "conditions": before,
        "conditions_after": conditions(arguments.device),
        "threads": torch.get_num_threads(),
        "dtype": arguments.dtype,
        "batch": arguments.batch,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": narrows.__version__,
        "seconds": round(time.perf_counter() - began, 1),
        "variants": [{"name": one.name, **one.errors} for one in made],
        "rows": rows,
    }
    save(arguments.output, record)


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[1])
    parser.add_argument("--output", default=str(OUTPUT), help='JSON to write; "-" writes none')
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--lengths", default="128,512,2048", help="tokens, separated by commas")
    parser.add_argument("--widths", default="48:64,32:64,32:48", help="QUERY_KEY:VALUE, separated by commas")
    parser.add_argument("--batch", type=int, default=1, help="sequences at a time")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=4096, help="for perplexity, at each length")
    return parser.parse_args()


def variants(arguments: argparse.Namespace, documents: tuple[str, ...], context: int) -> tuple[list[Variant], Any]:
    """Return the dense model, one narrowed copy for each pair of widths, and the tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = MODELS / "smollm2"
    if not TEXT.exists() or not (folder / "config.json").exists():
        raise SystemExit(f"{MODELS} lacks models or texts: run `make models` first.")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dense = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(arguments.device)
    names = attention_inputs(dense)
    text = windows(documents, tokenizer, tokens=WINDOW, number=CALIBRATED, seed=0).ids_NT
    moments = calibrate(dense, text, targets(dense, lambda _, name: name in names), gradients=False)
    dtype = getattr(torch, arguments.dtype)
    made = [Variant("dense", copy.deepcopy(dense).to(dtype), {})]
    for widths in arguments.widths.split(","):
        query_key, value = (int(part) for part in widths.split(":"))
        model = copy.deepcopy(dense)
        summary = attention_(model, moments, AttentionWidths(query_key, value), context=context)
        errors = {
            "scores_error": _mean([layer.query_key_error for layer in summary.layers]),
            "values_error": _mean([layer.value_error for layer in summary.layers]),
        }
        made.append(Variant(widths, model.to(dtype), errors))
    return made, tokenizer


@torch.inference_mode()
def measured(made: list[Variant], work: Work) -> Iterator[dict[str, object]]:
    """Yield one row for each variant at one length."""
    prompts = {one.name: prefill(one.model, work) for one in made}
    caches = {one.name: filled(one.model, work) for one in made}
    steps = {one.name: decode(one.model, caches[one.name], work) for one in made}
    times = {what: in_turn(calls, work) for what, calls in (("prefill", prompts), ("decode", steps))}
    for one in made:
        row: dict[str, object] = {"length": work.length, "variant": one.name}
        for what, samples in times.items():
            row[f"{what}_ms"] = sorted(samples[one.name])[len(samples[one.name]) // 2] * 1e3
            row[f"{what}_speedup"] = asdict(paired_ratio(samples["dense"], samples[one.name]))
        row["cache_bytes"] = cache_bytes(caches[one.name]) // work.batch
        row["perplexity"], row["predicted_tokens"] = perplexity(one.model, work.ids_NT)
        print(line(row), flush=True)
        yield row


def prefill(model: Any, work: Work) -> Callable[[], object]:
    """Return one forward pass over a prompt."""
    ids = _prompt(work)
    return lambda: model(ids, logits_to_keep=1, use_cache=True)


def filled(model: Any, work: Work) -> Any:
    """Return the cache after a prompt."""
    return model(_prompt(work), logits_to_keep=1, use_cache=True).past_key_values


def decode(model: Any, cache: Any, work: Work) -> Callable[[], object]:
    """Return one more token after the cache, which is then as long as before."""
    ids = _prompt(work)[:, :1]

    def step() -> None:
        model(ids, past_key_values=cache, use_cache=True)
        cache.crop(-1)

    return step


def in_turn(calls: dict[str, Callable[[], object]], work: Work) -> dict[str, list[float]]:
    """Return seconds a call, one sample of each variant in every round."""
    for call in calls.values():
        timed(call, WARM_UP, work.device)
    fastest = min(timed(call, 1, work.device) for call in calls.values())
    repeats = max(1, math.ceil(SAMPLE_S / fastest))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(work.rounds):
        for name, call in calls.items():
            samples[name].append(timed(call, repeats, work.device) / repeats)
    return samples


def timed(call: Callable[[], object], repeats: int, device: str) -> float:
    """Return seconds of so many calls, until the device has finished."""
    _wait(device)
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait(device)
    return time.perf_counter() - began


def cache_bytes(cache: Any) -> int:
    """Return bytes of all keys and values."""
    return sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))


@torch.inference_mode()
def perplexity(model: Any, ids_NT: torch.Tensor) -> tuple[float, int]:
    """Return perplexity over windows, and how many tokens were predicted."""
    total, count = 0.0, 0
    for ids in ids_NT:
        logits = model(ids[None]).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum"))
        count += len(ids) - 1
    return math.exp(total / count), count


def line(row: dict[str, Any]) -> str:
    """Return a row as text."""
    times = "  ".join(
        f"{what} {row[f'{what}_ms']:8.2f} ms {row[f'{what}_speedup']['value']:.2f}x "
        f"[{row[f'{what}_speedup']['low']:.2f}, {row[f'{what}_speedup']['high']:.2f}]"
        for what in ("prefill", "decode")
    )
    return (
        f"{row['length']:6} tokens  {row['variant']:7} {times}  cache {row['cache_bytes'] / 1e6:7.2f} MB  "
        f"perplexity {row['perplexity']:.3f}"
    )


def _prompt(work: Work) -> torch.Tensor:
    """Return (B, T) tokens; a batch repeats the first window, whose content no time depends on."""
    return work.ids_NT[:1].expand(work.batch, -1).contiguous()


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _mean(errors: list[float | None]) -> float:
    known = [error for error in errors if error is not None]
    return sum(known) / len(known) if known else 0.0


if __name__ == "__main__":
    main()
