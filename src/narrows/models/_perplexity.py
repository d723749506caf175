"""How well causal models foretell a text: losses of every token, and two models paired over the same windows.

Letters: N windows, T tokens a window, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from narrows._values._check import Estimate, LanguageQuality
from narrows.errors import NonFiniteError
from narrows.models._check_interval import mean_over_documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn

    Progress = Callable[[str, int, int], None] | None

Name = TypeVar("Name", bound=str)

LOGIT_BYTES = 256 << 20  # logits of one model at a time: 2 windows of 512 tokens with 49,152 words in float32
CHUNK = 128  # tokens whose log-probabilities are held at once: 25 MB with 49,152 words
LARGEST_LOSS = 700.0  # nats: exp of more overflows


@dataclass(frozen=True, eq=False)
class PairedLosses:
    """What one model says about every token, beside dense; all (N, T - 1), float64, on the CPU.

    Attributes:
        losses: negative log-likelihoods, nats.
        divergence: KL(dense || this) of the whole next-token distribution, nats.
        agreement: 1.0 where both name the same token first, else 0.0.
    """

    losses: Tensor
    divergence: Tensor
    agreement: Tensor


def token_losses(model: nn.Module, ids_NT: Tensor, *, progress: Progress = None) -> Tensor:
    """Return the negative log-likelihood of every token but a window's first, (N, T - 1), nats, float64.

    Args:
        model: causal, of transformers; its logits are taken as they come and softmax is done in float32 or wider.
        ids_NT: token ids, (N, T).
        progress: called with (what, windows done, windows in all).

    Raises:
        NonFiniteError: the model gives NaN or Inf.
    """
    return paired_losses(model, {}, ids_NT, progress=progress)[0]


@torch.inference_mode()
def paired_losses(
    dense: nn.Module, others: Mapping[Name, nn.Module], ids_NT: Tensor, *, progress: Progress = None
) -> tuple[Tensor, dict[Name, PairedLosses]]:
    """Return dense's losses (N, T - 1) and each other model's, from one pass over the windows.

    Logits of a few windows are held at a time, never those of the whole text.

    Args:
        dense: what the others are compared with.
        others: name -> model of the same vocabulary.
        ids_NT: token ids, (N, T).
        progress: called with (what, windows done, windows in all).

    Raises:
        NonFiniteError: a model gives NaN or Inf; the text names it.
    """
    dense_losses: list[Tensor] = []
    found: dict[Name, list[tuple[Tensor, ...]]] = {name: [] for name in others}
    done = 0
    for ids_BT in _batches(dense, ids_NT):
        logits = _logits(dense, ids_BT)
        dense_losses.append(_checked("dense", _losses(logits, ids_BT)))
        for name, model in others.items():
            found[name].append(_compared(name, logits, _logits(model, ids_BT), ids_BT))
        done += len(ids_BT)
        if progress is not None:
            progress("perplexity", done, len(ids_NT))
    paired = {
        name: PairedLosses(*(torch.cat(parts) for parts in zip(*rows, strict=True))) for name, rows in found.items()
    }
    return torch.cat(dense_losses), paired


def dense_quality(losses: Tensor) -> LanguageQuality:
    """Return dense's own quality of its losses (N, T - 1)."""
    return LanguageQuality(_perplexity("dense", losses))


def language_quality(
    name: str, dense_losses: Tensor, paired: PairedLosses, documents_N: Tensor, seed: int
) -> LanguageQuality:
    """Return a model's quality against dense, with intervals over documents.

    The interval of the ratio is exp of the interval of the mean difference of losses, paired token by token.

    Args:
        name: of the model, for errors.
        dense_losses: (N, T - 1).
        paired: the model's, over the same windows.
        documents_N: which document each window comes from, (N,).
        seed: of the resampling.
    """
    growth = _mean(paired.losses - dense_losses, documents_N, seed)
    return LanguageQuality(
        perplexity=_perplexity(name, paired.losses),
        ratio=_exp(growth),
        divergence=_mean(paired.divergence, documents_N, seed),
        agreement=_mean(paired.agreement, documents_N, seed),
    )


def _batches(model: nn.Module, ids_NT: Tensor) -> Iterator[Tensor]:
    config: Any = model.config
    row_bytes = ids_NT.shape[1] * int(config.get_text_config().vocab_size) * 4
    device = next(model.parameters()).device
    for batch in torch.split(ids_NT, max(1, LOGIT_BYTES // row_bytes)):
        yield batch.to(device)


def _logits(model: nn.Module, ids_BT: Tensor) -> Tensor:
    """Return logits (B, T - 1, V) of every next token but the one after the last."""
    logits: Tensor = model(input_ids=ids_BT, use_cache=False).logits
    return logits[:, :-1]


def _chunks(logits_BTV: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield where a chunk of tokens begins and its log-probabilities (B, CHUNK, V) in float32 or wider."""
    for start in range(0, logits_BTV.shape[1], CHUNK):
        chunk = logits_BTV[:, start : start + CHUNK]
        wide = torch.promote_types(chunk.dtype, torch.float32)
        yield start, torch.log_softmax(chunk, dim=-1, dtype=wide)


def _taken(log_p: Tensor, ids_BT: Tensor, start: int) -> Tensor:
    """Return the negative log-probabilities (B, CHUNK) of the tokens that did follow."""
    next_BC = ids_BT[:, start + 1 : start + 1 + log_p.shape[1]]
    return -log_p.gather(-1, next_BC[..., None])[..., 0].double()


def _losses(logits_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    return torch.cat([_taken(log_p, ids_BT, start) for start, log_p in _chunks(logits_BTV)], dim=1).cpu()


def _compared(name: str, dense_BTV: Tensor, other_BTV: Tensor, ids_BT: Tensor) -> tuple[Tensor, ...]:
    """Return losses, divergence and agreement, each (B, T - 1)."""
    rows = []
    for (start, log_p), (_, log_q) in zip(_chunks(dense_BTV), _chunks(other_BTV), strict=True):
        divergence = (log_p.exp() * (log_p - log_q)).sum(dim=-1, dtype=torch.float64)
        agreement = (log_p.argmax(dim=-1) == log_q.argmax(dim=-1)).double()
        rows.append((_taken(log_q, ids_BT, start), divergence, agreement))
    losses, divergence, agreement = (torch.cat(parts, dim=1).cpu() for parts in zip(*rows, strict=True))
    return _checked(name, losses), _checked(name, divergence), agreement


def _checked(name: str, values: Tensor) -> Tensor:
    if not values.isfinite().all():
        bad = int((~values.isfinite()).sum())
        raise NonFiniteError(
            f"{name} gives NaN or Inf for {bad} of {values.numel()} tokens. Its weights or its dtype are at fault: try "
            "dtype float32, and compress it again if that does not help."
        )
    return values


def _perplexity(name: str, losses: Tensor) -> float:
    mean = losses.mean()
    if mean > LARGEST_LOSS:
        raise NonFiniteError(f"{name} has a mean loss of {mean:.4g} nats a token: its perplexity is no finite number.")
    return float(mean.exp())


def _mean(values: Tensor, documents_N: Tensor, seed: int) -> Estimate:
    counts = torch.full((len(values),), values.shape[1], dtype=torch.float64)
    return mean_over_documents(values.sum(dim=1).numpy(), counts.numpy(), documents_N.numpy(), seed=seed)


def _exp(estimate: Estimate) -> Estimate:
    import numpy as np

    value, low, high = (
        None if end is None else float(np.exp(end)) for end in (estimate.value, estimate.low, estimate.high)
    )
    assert value is not None
    return Estimate(value, low, high)
