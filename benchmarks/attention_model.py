# ruff: noqa: D400 (the first line is the question)
r"""What do narrow heads buy and cost in a whole model: time, bytes of the cache and quality, at each length?

A model's heads are narrowed after calibration on Wikipedia, to widths QUERY_KEY:VALUE, all else stays dense. Dense is
the model as transformers runs it, with torch's scaled_dot_product_attention. For each workload:

    prefill:TxB   one forward pass over B prompts of T tokens, logits of the last token only
    decode:TxB    one more token of B sequences after a cache of T tokens, and the bytes of that cache, a sequence

A round takes one sample of every variant in turn; a speedup is dense time / time by round, its median with a 99 %
interval, and "faster" only where that is beyond a tie. At each length of a prefill, on documents that nothing was
calibrated on: perplexity and KL against dense of a causal model, the cosine of embeddings with dense of an encoder,
with 95 % intervals over documents.

    python benchmarks/attention_model.py                                    a CPU: tens of minutes; needs `make models`
    python benchmarks/attention_model.py --device cuda --dtype bfloat16 \
        --workloads prefill:512x64,prefill:2048x16,prefill:8192x4,decode:512x64,decode:2048x64,decode:8191x64
    python benchmarks/attention_model.py --model models/minilm --workloads prefill:16x64,prefill:128x8,prefill:512x2
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import narrows
from _gpu import command, save
from narrows._machine import conditions
from narrows._stats import paired_ratio
from narrows.models import AttentionWidths
from narrows.models._attention import attention_, attention_inputs, attention_layers
from narrows.models._calibrate import calibrate
from narrows.models._match import targets
from narrows.models._perplexity import dense_quality, language_quality, paired_losses
from narrows.models._similarity import Seen, embeddings, encoder_quality
from narrows.models._speed import request, times
from narrows.models._texts import read_documents, split, windows
from narrows.models.families import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MODELS = Path(__file__).parents[1] / "models"
OUTPUT = Path(__file__).parent / "results" / "attention-model-cpu.json"
WORKLOADS = "prefill:128x1,prefill:512x1,prefill:2048x1,decode:128x1,decode:512x1,decode:2048x1"
CALIBRATED, WINDOW = 24, 512
# Of the heads' width. Fused kernels run at the larger of both: widths that differ save bytes, equal ones time too.
SHARES = ((1 / 2, 1), (3 / 4, 3 / 4), (1 / 2, 1 / 2))
DOCUMENTS = 32


@dataclass(frozen=True)
class Variants:
    """The same model with heads of several widths.

    Attributes:
        models: "dense" first, then "QUERY_KEY:VALUE".
        errors: by the name of a narrow one, mean expected errors over layers; what stayed dense has none.
        tokenizer, checked: what quality is measured with.
    """

    models: dict[str, Any]
    errors: dict[str, dict[str, float]]
    tokenizer: Any
    checked: tuple[str, ...]

    @property
    def is_causal(self) -> bool:
        """The model writes text."""
        return bool(self.models["dense"].can_generate())


def main() -> None:
    """Measure, print and record."""
    import transformers

    arguments, began = parsed(), time.perf_counter()
    workloads = [narrows.Workload.parse(text) for text in arguments.workloads.split(",")]
    made, before = opened(arguments, max(one.tokens for one in workloads)), conditions(arguments.device)
    speed = [row for one in workloads for row in speeds(made, one, torch.device(arguments.device))]
    lengths = dict.fromkeys(one.tokens for one in workloads if one.phase == "prefill")
    quality = [row for length in lengths for row in qualities(made, length, arguments.tokens)]
    record = {
        "question": (__doc__ or "").splitlines()[0],
        "command": command(),
        "machine": asdict(narrows.machine(arguments.device)),
        "transformers": transformers.__version__,
        "conditions": before,
        "conditions_after": conditions(arguments.device),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": narrows.__version__,
        "seconds": round(time.perf_counter() - began, 1),
        "model": arguments.model.name,
        "dtype": arguments.dtype,
        "dense_attention": made.models["dense"].config._attn_implementation,  # noqa: SLF001 (it has no other name)
        "calibrated_tokens": CALIBRATED * WINDOW,
        "expected_errors": made.errors,
        "speed": speed,
        "quality": quality,
    }
    for line in verdicts(speed):
        print(line)
    save(arguments.output, record)


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[1])
    parser.add_argument("--model", type=Path, default=MODELS / "smollm2")
    parser.add_argument("--texts", type=Path, default=MODELS / "texts" / "wikipedia.jsonl")
    parser.add_argument("--output", default=str(OUTPUT), help='JSON to write; "-" writes none')
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--workloads", default=WORKLOADS, help="prefill:TOKENSxBATCH, decode:CONTEXTxBATCH")
    parser.add_argument("--widths", help="QUERY_KEY:VALUE, separated by commas; else 3/4 and 1/2 of the heads")
    parser.add_argument("--tokens", type=int, default=16384, help="for perplexity, at each length")
    return parser.parse_args()


def opened(arguments: argparse.Namespace, context: int) -> Variants:
    """Return the dense model and a narrow copy for each pair of widths."""
    from transformers import AutoTokenizer

    if not arguments.texts.exists() or not (arguments.model / "config.json").exists():
        raise SystemExit(f"{arguments.model} or {arguments.texts} is missing: run `make models`.")
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    dense: Any = narrows.load(arguments.model, device=arguments.device, dtype=torch.float32)
    parts = split(read_documents(arguments.texts), seed=0)
    window = min(WINDOW, dense.config.max_position_embeddings)
    text = windows(parts.calibration, tokenizer, tokens=window, number=CALIBRATED * WINDOW // window, seed=0)
    asked = widths_of(dense, arguments.widths)
    names = {name for one in asked.values() for name in attention_inputs(dense, one)}
    moments = calibrate(dense, text.ids_NT, targets(dense, lambda _, name: name in names), gradients=False)
    dtype = getattr(torch, arguments.dtype)
    models, errors = {"dense": copy.deepcopy(dense).to(dtype)}, {}
    for name, widths in asked.items():
        model = copy.deepcopy(dense)
        layers = attention_(model, moments, widths, context=context).layers
        models[name] = model.to(dtype)
        errors[name] = means(scores=[one.query_key_error for one in layers], values=[one.value_error for one in layers])
    return Variants(models, errors, tokenizer, parts.check)


def widths_of(model: Any, asked: str | None) -> dict[str, AttentionWidths]:
    """Return the widths that are asked for, by name; by default shares of the model's own."""
    if asked is None:
        module = next(module for _, module in attention_layers(model))
        family = family_of(module)
        assert family is not None, f"{type(module).__name__} is of no known family"
        K = family.sizes(module).width
        asked = ",".join(f"{int(K * first)}:{int(K * second)}" for first, second in SHARES)
    pairs = {name: [int(part) for part in name.split(":")] for name in asked.split(",")}
    return {name: AttentionWidths(query_key=first, value=second) for name, (first, second) in pairs.items()}


def means(**errors: Sequence[float | None]) -> dict[str, float]:
    """Return the mean of those errors that there are."""
    known = {name: [one for one in found if one is not None] for name, found in errors.items()}
    return {name: statistics.mean(found) for name, found in known.items() if found}


def speeds(made: Variants, workload: narrows.Workload, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield one row for each variant, all timed together."""
    with torch.inference_mode():
        requests = {name: request(model, workload, seed=0) for name, model in made.models.items()}
    samples = times(requests, device)
    for name, ns in samples.items():
        ratio = paired_ratio(samples["dense"], ns)
        row = {
            "workload": str(workload),
            "variant": name,
            "ms": statistics.median(ns) / 1e6,
            "speedup": asdict(ratio),
            "verdict": ratio.verdict,
            "samples_ns": ns,
        }
        if workload.phase == "decode":
            row["cache_bytes"] = requests[name].held_bytes // workload.batch
        print(speed_line(row), flush=True)
        yield row


def qualities(made: Variants, length: int, tokens: int) -> list[dict[str, Any]]:
    """Return one row for each variant: what it makes of text in windows of a length, beside dense."""
    rows = causal_quality(made, length, tokens) if made.is_causal else encoder_cosines(made, length)
    for row in rows:
        print(quality_line(row), flush=True)
    return rows


def causal_quality(made: Variants, length: int, tokens: int) -> list[dict[str, Any]]:
    """Return perplexity, and for the narrow ones its ratio to dense's, KL and agreement."""
    text = windows(made.checked, made.tokenizer, tokens=length, number=max(1, tokens // length), seed=0)
    others = {name: model for name, model in made.models.items() if name != "dense"}
    losses, paired = paired_losses(made.models["dense"], others, text.ids_NT)
    found = {"dense": dense_quality(losses)}
    found |= {name: language_quality(name, losses, one, text.documents_N, 0) for name, one in paired.items()}
    read = {"length": length, "windows": len(text.ids_NT), "documents": len(set(text.documents_N.tolist()))}
    return [{**read, "variant": name, **measured(asdict(one))} for name, one in found.items()]


def encoder_cosines(made: Variants, length: int) -> list[dict[str, Any]]:
    """Return the mean cosine with dense of embeddings of documents cut at a length."""
    texts = made.checked[:DOCUMENTS]
    seen = {
        name: Seen(embeddings(name, model, made.tokenizer, texts, tokens=length)) for name, model in made.models.items()
    }
    found = {name: encoder_quality(seen["dense"], one, None, seed=0) for name, one in seen.items() if name != "dense"}
    read = {"length": length, "documents": len(texts)}
    return [{**read, "variant": name, **measured(asdict(one))} for name, one in found.items()]


def measured(quality: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured of a quality."""
    return {name: one for name, one in quality.items() if one is not None}


def speed_line(row: dict[str, Any]) -> str:
    """Return a row as text."""
    text = f"{row['workload']:16} {row['variant']:7} {row['ms']:9.2f} ms"
    if row["variant"] != "dense":
        one = row["speedup"]
        text += f"  {one['value']:.2f}x [{one['low']:.2f}, {one['high']:.2f}] {row['verdict']}"
    return text + (f"  cache {row['cache_bytes'] / 1e6:.2f} MB" if "cache_bytes" in row else "")


def quality_line(row: dict[str, Any]) -> str:
    """Return a row as text."""
    text = f"{row['length']:5} tokens  {row['variant']:7}"
    for name in ("perplexity", "ratio", "divergence", "agreement", "similarity"):
        one = row.get(name)
        if isinstance(one, dict):
            ends = "" if one["low"] is None else f" [{one['low']:.4f}, {one['high']:.4f}]"
            text += f"  {name} {one['value']:.4f}{ends}"
        elif one is not None:
            text += f"  {name} {one:.3f}"
    return text


def verdicts(speed: list[dict[str, Any]]) -> list[str]:
    """Return for each workload what is fastest: dense, unless a narrow variant is faster beyond a tie."""
    lines = []
    for workload in dict.fromkeys(row["workload"] for row in speed):
        faster = [row for row in speed if row["workload"] == workload and row["verdict"] == "faster"]
        if faster:
            best = max(faster, key=lambda row: row["speedup"]["value"])
            lines.append(f"{workload}: {best['variant']} is fastest, {best['speedup']['value']:.2f}x dense")
        else:
            lines.append(f"{workload}: dense; nothing is faster beyond a tie")
    return lines


if __name__ == "__main__":
    main()
