# ruff: noqa: D400 (the first line is the question)
"""Does an encoder with narrower queries and keys rank words as before, and which text must calibrate it for that?

all-MiniLM-L6-v2 (heads 32 wide) on WordSim-353: Spearman's correlation of the cosines of two words' embeddings with
how alike people find them. A word stands between two marks ([CLS], [SEP]): 3 or 4 tokens, half of them marks, which
are 1 in 256 tokens of a window of 512. Three texts calibrate, each about as many tokens, all of Wikipedia:

    windows    of 512 tokens: the default
    lengths    windows of 512, 64, 16 and 4 tokens, equal shares of the tokens
    words      different words of the same documents, each between its marks; no word of WordSim-353 is among them

and keys are weighed in two ways:

    even       every token counts alike: the scores of all pairs lose least
    attended   a key counts by the attention that it gets: to second order the softmax moves by the variance of a row's
               score errors under the row's own attention, p (KL = Var_p / 2), and sum_i p_ij is what key j gets

A row has the loss of correlation against dense with a 95 % bootstrap interval over word pairs, and the mean cosine
with dense of embeddings of long documents that no calibration has read: what the text that suits words costs there.

    python benchmarks/word_similarity.py                      some minutes on two cores; needs models/ (make models)
    python benchmarks/word_similarity.py --device cuda --output benchmarks/results/word-similarity-h200.json
"""

from __future__ import annotations

import argparse
import copy
import random
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import narrows
from _gpu import command, save
from narrows._machine import conditions
from narrows.decompose import head_moments, query_key
from narrows.models import AttentionWidths
from narrows.models._attention import attention_, attention_inputs, attention_layers
from narrows.models._attention_module import ModelAttention
from narrows.models._calibrate import calibrate
from narrows.models._check_data import read_pairs
from narrows.models._match import targets
from narrows.models._similarity import Seen, embeddings, encoder_quality
from narrows.models._texts import read_documents, split, windows
from narrows.models.families import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from narrows.models._check_data import Pairs

    Inputs = list[dict[str, torch.Tensor]]

MODELS = Path(__file__).parents[1] / "models"
OUTPUT = Path(__file__).parent / "results" / "word-similarity-cpu.json"
LENGTHS = (512, 64, 16, 4)
TOKENS_A_WORD = 3  # and more for words in several pieces
BATCH_TOKENS = 512
PAIR_TOKENS, DOCUMENT_TOKENS = 16, 512
WORD = re.compile(r"[a-z]{3,}")


@dataclass(frozen=True)
class Bench:
    """What every row shares: a dense encoder, its tokenizer, word pairs, and how much is read."""

    model: Any
    tokenizer: Any
    pairs: Pairs
    documents: tuple[str, ...]
    tokens: int
    widths: tuple[int, ...]
    checked: int


def main() -> None:
    """Measure, print and record."""
    arguments, began = parsed(), time.perf_counter()
    bench, before = opened(arguments), conditions(arguments.device)
    rows = [told(row) for seed in range(arguments.seeds) for row in measured(bench, seed)]
    record = {
        "question": (__doc__ or "").splitlines()[0],
        "command": command(),
        "machine": asdict(narrows.machine(arguments.device)),
        "conditions": before,
        "conditions_after": conditions(arguments.device),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": narrows.__version__,
        "seconds": round(time.perf_counter() - began, 1),
        "pairs": len(bench.pairs.scores),
        "lengths": LENGTHS,
        "documents_checked": bench.checked,
        "rows": rows,
    }
    save(arguments.output, record)


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[1])
    parser.add_argument("--model", type=Path, default=MODELS / "minilm")
    parser.add_argument("--texts", type=Path, default=MODELS / "texts" / "wikipedia.jsonl")
    parser.add_argument("--pairs", type=Path, default=MODELS / "texts" / "wordsim353.tsv")
    parser.add_argument("--output", default=str(OUTPUT), help='JSON to write; "-" writes none')
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seeds", type=int, default=2, help="how many divisions of the documents")
    parser.add_argument("--widths", default="24,16,8", help="of queries and keys, separated by commas")
    parser.add_argument("--tokens", type=int, default=12288, help="that calibrate")
    parser.add_argument("--documents", type=int, default=8, help="long documents whose embeddings are compared")
    return parser.parse_args()


def opened(arguments: argparse.Namespace) -> Bench:
    """Return the model and everything it reads."""
    from transformers import AutoTokenizer

    if not (arguments.texts.exists() and arguments.pairs.exists() and (arguments.model / "config.json").exists()):
        raise SystemExit(f"{arguments.model}, {arguments.texts} or {arguments.pairs} is missing: run `make models`.")
    return Bench(
        narrows.load(arguments.model, device=arguments.device, dtype=torch.float32),
        AutoTokenizer.from_pretrained(arguments.model),
        read_pairs(arguments.pairs),
        read_documents(arguments.texts),
        arguments.tokens,
        tuple(int(width) for width in arguments.widths.split(",")),
        arguments.documents,
    )


def measured(bench: Bench, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the row of dense, then one for each text, weight and width."""
    parts = split(bench.documents, seed=seed)
    checked = parts.check[: bench.checked]
    dense = seen(bench, bench.model, checked)
    of_dense = encoder_quality(dense, None, bench.pairs, seed=seed)
    yield {"seed": seed, "text": None, "weights": None, "width": None, "spearman": of_dense.correlation}
    for text, inputs in calibrations(bench, parts.calibration, seed).items():
        for weights, width, model in narrowed(bench.model, inputs, bench.widths):
            found = encoder_quality(dense, seen(bench, model, checked), bench.pairs, seed=seed)
            assert found.correlation_change is not None
            assert found.similarity is not None
            change = found.correlation_change
            yield {
                "seed": seed,
                "text": text,
                "tokens": sum(counted(one) for one in inputs),
                "weights": weights,
                "width": width,
                "spearman": found.correlation,
                "loss": {"value": 0 - change.value, "low": _negative(change.high), "high": _negative(change.low)},
                "documents_cosine": asdict(found.similarity),
            }


def seen(bench: Bench, model: nn.Module, documents: tuple[str, ...]) -> Seen:
    """Return cosines of the word pairs, and embeddings of long documents."""
    first, second = (
        embeddings("encoder", model, bench.tokenizer, side, tokens=PAIR_TOKENS)
        for side in (bench.pairs.first, bench.pairs.second)
    )
    long = embeddings("encoder", model, bench.tokenizer, documents, tokens=DOCUMENT_TOKENS)
    return Seen(long, (first * second).sum(axis=1))


def calibrations(bench: Bench, documents: tuple[str, ...], seed: int) -> dict[str, Inputs]:
    """Return each text that calibrates, as the model's keyword arguments."""
    return {
        "windows": windowed(bench, documents, LENGTHS[:1], seed),
        "lengths": windowed(bench, documents, LENGTHS, seed),
        "words": worded(bench, documents, seed),
    }


def windowed(bench: Bench, documents: tuple[str, ...], lengths: tuple[int, ...], seed: int) -> Inputs:
    """Return windows of these lengths, each with the same share of the tokens."""
    found: Inputs = []
    for length in lengths:
        number = max(1, bench.tokens // len(lengths) // length)
        ids_NT = windows(documents, bench.tokenizer, tokens=length, number=number, seed=seed).ids_NT
        found += [{"input_ids": part} for part in ids_NT.split(max(1, BATCH_TOKENS // length))]
    return found


def worded(bench: Bench, documents: tuple[str, ...], seed: int) -> Inputs:
    """Return different words of the documents, each as a text of its own; none that is judged."""
    judged = {word.lower() for word in (*bench.pairs.first, *bench.pairs.second)}
    words = sorted({word for text in documents for word in WORD.findall(text.lower())} - judged)
    chosen = random.Random(seed).sample(words, min(len(words), bench.tokens // TOKENS_A_WORD))  # noqa: S311 (no secret)
    size = BATCH_TOKENS // TOKENS_A_WORD
    return [
        dict(bench.tokenizer(chosen[i : i + size], padding=True, return_tensors="pt"))
        for i in range(0, len(chosen), size)
    ]


def counted(inputs: Mapping[str, torch.Tensor]) -> int:
    """Return tokens without padding."""
    return int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else inputs["input_ids"].numel()


def narrowed(model: nn.Module, inputs: Inputs, widths: tuple[int, ...]) -> Iterator[tuple[str, int, nn.Module]]:
    """Yield how keys are weighed, a width, and the model with queries and keys of it."""
    names = attention_inputs(model, AttentionWidths(query_key=min(widths)))
    moments = calibrate(model, inputs, targets(model, lambda _, name: name in names), gradients=False)
    keys = attended_keys(model, inputs)
    for width in widths:
        made = copy.deepcopy(model)
        attention_(made, moments, AttentionWidths(query_key=width))
        yield "even", width, made
        made = copy.deepcopy(model)
        narrow_attended(made, moments, keys, width)
        yield "attended", width, made


def narrow_attended(model: nn.Module, moments: Mapping[str, Any], keys: dict[str, torch.Tensor], width: int) -> None:
    """Narrow queries and keys in place, with these second moments of the keys."""
    for name, module in list(attention_layers(model)):
        family: Any = family_of(module)
        dense = family.read(module)
        of_input = moments[f"{name}.{family.layers[0]}"]
        queries = head_moments(dense.query.weight, dense.query.bias, of_input, heads=dense.heads).cpu()
        maps = query_key(queries, keys[name]).at(width)
        model.set_submodule(name, ModelAttention.in_place_of(module, dense.narrowed(maps), family))


@torch.no_grad()
def attended_keys(model: nn.Module, inputs: Inputs) -> dict[str, torch.Tensor]:
    """Return the second moments of each attention's keys less their mean, keys counted by the attention they get.

    (H, K, K) float64 by the attention's name; the mean is weighed alike.
    """
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")  # type: ignore[operator]
    device = next(model.parameters()).device
    sums = {name: Attended(module) for name, module in attention_layers(model)}
    for batch in inputs:
        ones_BT = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
        for one in sums.values():
            one.counts_BT = ones_BT.to(device)
        model(**{name: tensor.to(device) for name, tensor in batch.items()})
    return {name: one.moments() for name, one in sums.items()}


class Attended:
    """Sums over the keys of one attention, weighed by the attention that each gets from the queries that count."""

    counts_BT: torch.Tensor

    def __init__(self, module: nn.Module) -> None:
        family: Any = family_of(module)
        self._key, self._heads = family.read(module).key, family.sizes(module).heads
        self._x_BTD = torch.empty(0)
        self._sums: tuple[Any, Any, Any] = (0.0, 0.0, 0.0)
        module.get_submodule(family.layers[1]).register_forward_pre_hook(self._reads)
        module.register_forward_hook(self._gives)

    def _reads(self, _: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self._x_BTD = given[0]

    def _gives(self, _: nn.Module, __: object, output: tuple[torch.Tensor, ...]) -> None:
        key_BTE = torch.nn.functional.linear(self._x_BTD, self._key.weight, self._key.bias).double()
        key_BTHK = key_BTE.unflatten(-1, (self._heads, -1))
        gets_BHT = (output[1].double() * self.counts_BT[:, None, :, None]).sum(dim=-2)
        total_H, first_HK, second_HKK = self._sums
        self._sums = (
            total_H + gets_BHT.sum(dim=(0, 2)),
            first_HK + torch.einsum("bht,bthk->hk", gets_BHT, key_BTHK),
            second_HKK + torch.einsum("bht,bthk,bthl->hkl", gets_BHT, key_BTHK, key_BTHK),
        )

    def moments(self) -> torch.Tensor:
        """Return E[k k^T] - E[k] E[k]^T, (H, K, K) on the CPU."""
        total_H, first_HK, second_HKK = self._sums
        mean_HK = first_HK / total_H[:, None]
        return (second_HKK / total_H[:, None, None] - mean_HK[..., None] * mean_HK[:, None]).cpu()  # type: ignore[no-any-return]


def told(row: dict[str, Any]) -> dict[str, Any]:
    """Print a row and return it."""
    if row["width"] is None:
        print(f"seed {row['seed']}  dense {row['spearman']:.4f}", flush=True)
        return row
    loss, cosine = row["loss"], row["documents_cosine"]
    print(
        f"seed {row['seed']}  {row['text']:8} {row['weights']:9} width {row['width']:3}  {row['spearman']:.4f}  "
        f"loss {loss['value']:+.4f} [{loss['low']:+.4f}, {loss['high']:+.4f}]  documents' cosine {cosine['value']:.4f}",
        flush=True,
    )
    return row


def _negative(value: float | None) -> float | None:
    return None if value is None else 0 - value


if __name__ == "__main__":
    main()
