"""A compressed model measured beside its dense one on text and at workloads, to see whether a choice holds.

Letters: N windows, T tokens a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from narrows._stats import paired_ratio
from narrows._values._check import Timing
from narrows.models._check_interval import bootstrap
from narrows.models._check_verdict import overall_speedup
from narrows.models._perplexity import dense_quality, language_quality, paired_losses
from narrows.models._similarity import embeddings
from narrows.models._speed import request, times

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from narrows._stats import Ratio
    from narrows._values import Workload
    from narrows._values._check import Estimate
    from narrows.models._texts import Windows

    Progress = Callable[[str, int, int], None] | None


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured on text that calibration did not see.

    Attributes:
        dense, compressed: perplexities.
        ratio: compressed / dense, with its 95 % interval over documents.
        divergence: mean KL(dense || compressed), nats a token.
    """

    dense: float
    compressed: float
    ratio: Estimate
    divergence: Estimate

    @property
    def growth(self) -> float:
        """How much perplexity grew, as a share, at the upper end of its interval where there is one."""
        return (self.ratio.value if self.ratio.high is None else self.ratio.high) - 1.0


@dataclass(frozen=True, eq=False)
class Speeds:
    """Dense time / compressed time, with 99 % intervals.

    Attributes:
        by_workload: of each workload.
        overall: of all of them by their weights, as `check` judges it.
    """

    by_workload: Mapping[str, Ratio]
    overall: Ratio


def quality(dense: nn.Module, compressed: nn.Module, text: Windows, *, seed: int, progress: Progress = None) -> Quality:
    """Return the quality of a compressed causal model beside its dense one, over the same windows."""
    losses, others = paired_losses(dense, {"narrows": compressed}, text.ids_NT, progress=progress)
    found = language_quality("narrows", losses, others["narrows"], text.documents_N, seed)
    assert found.ratio is not None
    assert found.divergence is not None
    return Quality(dense_quality(losses).perplexity, found.perplexity, found.ratio, found.divergence)


def similarity(
    dense: nn.Module,
    compressed: nn.Module,
    documents: Sequence[str],
    tokenizer: Any,
    *,
    tokens: int,
    seed: int,
    progress: Progress = None,
) -> Estimate:
    """Return the mean cosine of an encoder's embeddings of documents with the dense ones."""
    both = [
        embeddings(name, model, tokenizer, documents, tokens=tokens, progress=progress)
        for name, model in (("dense", dense), ("narrows", compressed))
    ]
    cosines = (both[0] * both[1]).sum(axis=1)
    return bootstrap(lambda picks: cosines[picks].mean(axis=1), len(cosines), value=float(cosines.mean()), seed=seed)


def speeds(
    dense: nn.Module, compressed: nn.Module, workloads: Sequence[Workload], *, seed: int, progress: Progress = None
) -> Speeds:
    """Return how much faster the compressed model is at the workloads, timed in turn with the dense one."""
    device = next(dense.parameters()).device
    ratios: dict[str, Ratio] = {}
    timings: list[Timing] = []
    for one in workloads:
        with torch.inference_mode():
            both = {"dense": request(dense, one, seed=seed), "narrows": request(compressed, one, seed=seed)}
        samples = times(both, device, what=f"speed at {one}", progress=progress)
        timings += [Timing(one, side, samples[side], None) for side in ("dense", "narrows")]
        ratios[str(one)] = paired_ratio(samples["dense"], samples["narrows"])
    overall = overall_speedup(timings)
    assert overall is not None
    return Speeds(ratios, overall)


def dense_ns(dense: nn.Module, workloads: Sequence[Workload], *, seed: int, progress: Progress = None) -> float:
    """Return the dense model's time for one request of each workload by its share of the weights, ns."""
    device = next(dense.parameters()).device
    whole, total = sum(one.weight for one in workloads), 0.0
    for one in workloads:
        with torch.inference_mode():
            asked = {"dense": request(dense, one, seed=seed)}
        samples = times(asked, device, what=f"dense at {one}", progress=progress)
        total += one.weight / whole * median(samples["dense"])
    return total
