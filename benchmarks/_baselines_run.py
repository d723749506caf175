"""One seed of the quality benchmark: its texts, its model, what calibration tells, and what progress looks like.

Letters: N windows, T tokens.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from _baselines import plain, scaled, two_sided, whitened
from _baselines_model import BATCH, Layers, losses, mean_absolutes, passes
from _baselines_names import LEMS
from _baselines_search import choices, probed
from narrows.models._calibrate import calibrate
from narrows.models._match import targets
from narrows.models._texts import read_documents, split, windows

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from _baselines import Factored
    from _baselines_search import Choice
    from narrows.models._texts import Parts, Windows

PROBE_WINDOWS = 4  # 2048 tokens in each of LEMS's probes


NORMS = {  # that a method's factors are best in
    "plain": "plain",
    "asvd": "scaled",
    "svd-llm": "whitened",
    "svd-llm-v2": "whitened",
    "two-sided": "two-sided",
    **dict.fromkeys(LEMS, "two-sided"),
}


@dataclass(frozen=True, eq=False)
class Run:
    """One seed: its texts, its model, and what calibration tells; each is made when it is first asked for."""

    arguments: argparse.Namespace
    seed: int
    store: Path

    @cached_property
    def device(self) -> Any:
        """Where everything runs."""
        return torch.device(self.arguments.device)

    @cached_property
    def model(self) -> nn.Module:
        """The dense model."""
        from transformers import AutoModelForCausalLM

        say(f"reading {self.arguments.model.name}")
        found = AutoModelForCausalLM.from_pretrained(self.arguments.model, dtype="float32")
        return found.eval().to(self.device)

    @cached_property
    def tokenizer(self) -> Any:
        """Of the model."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.arguments.model)

    @cached_property
    def documents(self) -> tuple[str, ...]:
        """All articles."""
        return read_documents(self.arguments.texts / "wikipedia.jsonl")

    @cached_property
    def parts(self) -> Parts:
        """The articles, in three parts that share none."""
        return split(self.documents, seed=self.seed)

    @cached_property
    def check(self) -> dict[str, Windows]:
        """What every method is judged on."""
        news = read_documents(self.arguments.texts / "news.jsonl")
        texts = {"wikipedia": self.parts.check, "news": news}
        return {name: self.windows(text, self.arguments.windows) for name, text in texts.items()}

    @cached_property
    def calibration(self) -> Tensor:
        """Windows that all moments are of, (N, T)."""
        return self.windows(
            self.parts.calibration, -(-self.arguments.calibration_tokens // self.arguments.context)
        ).ids_NT

    @cached_property
    def layers(self) -> Layers:
        """The block linears."""
        return Layers(targets(self.model, window=self.calibration[:1]))

    @cached_property
    def moments(self) -> Mapping[str, Any]:
        """Second moments of inputs and output gradients of every layer."""
        autocast = None if self.arguments.autocast == "none" else getattr(torch, self.arguments.autocast)
        return calibrate(
            self.model,
            self.calibration,
            self.layers.targets,
            seed=self.seed,
            store=self.folder,
            autocast=autocast,
            progress=step,
        )

    @cached_property
    def means(self) -> dict[str, Tensor]:
        """Mean |x| of every layer's inputs."""
        return mean_absolutes(self.model, self.layers, self.calibration, self.arguments.autocast)

    @cached_property
    def dense_losses(self) -> dict[str, Tensor]:
        """Of every token of every check text."""
        return self.losses(self.model)

    @property
    def folder(self) -> Path:
        """Where calibration keeps its sums."""
        found = self.store / f"seed-{self.seed}"
        found.mkdir(parents=True, exist_ok=True)
        return found

    def windows(self, documents: Sequence[str], number: int) -> Windows:
        """Return windows of documents."""
        return windows(documents, self.tokenizer, tokens=self.arguments.context, number=number, seed=self.seed)

    def losses(self, model: nn.Module) -> dict[str, Tensor]:
        """Return a model's losses on every check text."""
        return {name: losses(model, windows, self.arguments.autocast) for name, windows in self.check.items()}

    def factored(self, method: str) -> Mapping[str, Factored]:
        """Return every layer's factors by the factorisation of a method; made once, and kept on the CPU."""
        norm = NORMS[method]
        if norm not in self._factored:
            self._factored[norm] = self._all_factored(norm)
        return self._factored[norm]

    @cached_property
    def _factored(self) -> dict[str, Mapping[str, Factored]]:
        return {}

    def _all_factored(self, norm: str) -> Mapping[str, Factored]:
        made: dict[str, Callable[[str, Tensor], Factored]] = {
            "plain": lambda _, weight: plain(weight),
            "scaled": lambda name, weight: scaled(weight, self.means[name]),
            "whitened": lambda name, weight: whitened(weight, self.moments[name].inputs),
            "two-sided": lambda name, weight: two_sided(
                weight, self.moments[name].inputs, self.moments[name].gradients
            ),
        }
        weights = {name: weight.cpu() for name, weight in self.layers.weights.items()}
        _ = self.means if norm == "scaled" else self.moments  # made here once, not by every thread
        with one_thread_each(), ThreadPoolExecutor(os.cpu_count()) as pool:
            waiting = {name: pool.submit(made[norm], name, weight) for name, weight in weights.items()}
            found = {}
            for name, one in waiting.items():
                found[name] = one.result()
                step(f"factorising, {norm}", len(found), len(weights))
        return found

    def choices(self, method: str, factored: Mapping[str, Factored]) -> dict[str, list[Choice]]:
        """Return what each layer could become, by LEMS's probes."""
        text = self.windows(self.parts.selection, PROBE_WINDOWS).ids_NT.to(self.device)
        damages = probed(
            self.layers,
            factored,
            lambda: self._logits(text),
            share=LEMS[method],
            tell=lambda done, of: step(f"probing, {method}", done, of),
        )
        shapes = self.layers.shapes
        return {name: choices(shapes[name], factored[name], damages[name], share=LEMS[method]) for name in factored}

    def _logits(self, ids_NT: Tensor) -> Tensor:
        with torch.inference_mode(), passes(self.device, self.arguments.autocast):
            return torch.cat([self.model(input_ids=ids, use_cache=False).logits for ids in ids_NT.split(BATCH)])


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let torch's operations use one thread each: many run at a time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def say(line: str) -> None:
    """Print a line now."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


_told: dict[str, float] = {}


def step(what: str, done: int, of: int) -> None:
    """Print progress, every 20 seconds and at the end."""
    now = time.monotonic()
    if done == of or now - _told.get(what, 0.0) > 20:
        _told[what] = now
        say(f"{what}: {done} of {of}")
