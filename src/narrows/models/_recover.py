"""Training what was compressed to say again what the dense model says, for a stated time.

Letters: N windows, B windows of one step, T tokens a window, V vocabulary.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from narrows.decompose import weighted, weighted_stack
from narrows.errors import InputError, NonFiniteError
from narrows.models._forms import TRANSPOSED, compressed_layers
from narrows.models._joint import stands_for
from narrows.models._match import blocks
from narrows.nn import LowRankLinear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from narrows._values import Moments
    from narrows.models._recipe import Method

    Progress = Callable[[str, int, int], None] | None

Trained = Literal["factors", "blocks"]
# SmolLM2-135M at 80 % of its numbers on an H200: 25 s at this rate took perplexity from 1.206 to 1.12 times dense's, at
# 3e-4 (16 windows a step) to 1.18, at 1e-3 to 1.73. Few windows a step, so that a CPU, too, makes many steps.
LEARNING_RATE, BATCH = 5e-5, 4
WARM_UP = 0.03  # share of the time over which the learning rate rises
MOST_NORM = 1.0  # of all gradients together
CHUNK = 256  # tokens whose distributions over the vocabulary are held at once


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a training run did.

    Attributes:
        steps, tokens: in all, over every pass through the windows.
        seconds: that it took.
        first, last: KL(dense || compressed) in nats a token, mean of the first and of the last tenth of the steps.
    """

    steps: int
    tokens: int
    seconds: float
    first: float
    last: float


def recover_(
    model: nn.Module,
    dense: nn.Module,
    ids_NT: Tensor,
    *,
    seconds: float,
    trained: Trained = "factors",
    batch_windows: int = BATCH,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    autocast: torch.dtype | None = None,
    progress: Progress = None,
) -> Recovery:
    """Train a compressed model in place on the dense model's distribution of every next token; return how it went.

    Knowledge distillation (Hinton, Vinyals and Dean 2015) with KL(dense || compressed), AdamW and a
    learning rate that rises, then falls as a cosine over the given time. Dropout is off in both, and weights of fewer
    bits than float32 are trained as float32 copies, since a step is smaller than their rounding. Afterwards factors
    are in no order: `reorder_` puts them back.

    Args:
        model: compressed, causal; on one device.
        dense: the model it came from, on the same device, in evaluation mode; stays as it is.
        ids_NT: token ids to train on, (N, T); not those of a later check.
        seconds: when to stop; the step that is running then is finished.
        trained: "factors": of the compressed layers, with their biases; "blocks": these, and all that stayed dense in
            the blocks, with norms and biases. Embeddings and head are never trained.
        batch_windows: B, windows in one step; all of them where there are fewer.
        learning_rate: its highest value.
        seed: of the order of windows.
        autocast: computes forward passes in this dtype.
        progress: called with (what, seconds done, seconds in all).

    Raises:
        InputError: nothing is compressed, or no time or text is given.
        NonFiniteError: the loss becomes NaN or Inf.
    """
    if not 0 < seconds < math.inf:
        raise InputError(f"seconds={seconds} must be a finite number above 0.")
    if ids_NT.ndim != 2 or not ids_NT.numel():
        raise InputError(f"ids {tuple(ids_NT.shape)} must be (N, T) token ids, neither of them 0.")
    student = _Student(model, dense, _Masters(trainable(model, trained), learning_rate), autocast)
    was_training, started = model.training, time.monotonic()
    before = _only(model, student.masters.weights)
    model.eval()
    losses: list[float] = []
    B = min(batch_windows, len(ids_NT))
    try:
        for ids_BT in _batches(ids_NT, B, seed):
            gone = time.monotonic() - started
            if gone >= seconds:
                break
            losses.append(student.step(ids_BT, _rate(gone / seconds)))
            if progress is not None:
                progress("recovery seconds", int(gone), math.ceil(seconds))
    finally:
        model.train(was_training)
        for parameter, asked in before:
            parameter.requires_grad_(asked)
            parameter.grad = None
    if progress is not None:
        progress("recovery seconds", math.ceil(seconds), math.ceil(seconds))
    tenth = max(1, len(losses) // 10)
    return Recovery(
        steps=len(losses),
        tokens=len(losses) * B * ids_NT.shape[1],
        seconds=time.monotonic() - started,
        first=sum(losses[:tenth]) / tenth,
        last=sum(losses[-tenth:]) / tenth,
    )


@torch.no_grad()
def reorder_(model: nn.Module, moments: Mapping[str, Moments], *, method: Method) -> None:
    """Put the ranks of every low-rank layer back in order of importance, in place, with a certificate of their own.

    The weights that the factors stand for stay what they are, but for rounding. Layers in the pivot form have no order.

    Args:
        model: compressed, after training.
        moments: by layer, of calibration.
        method: as `narrows.decompose.weighted`.
    """
    for name, _, layer in list(compressed_layers(model)):
        if not isinstance(layer, LowRankLinear):
            continue
        factors, bias = layer.factors, layer.up.bias
        weight_ED = factors.b.mT.double() @ factors.a.double()
        known = [moments[one] for one in stands_for(model, name)]
        if len(known) == 1:
            every = weighted(weight_ED, known[0], method=method)
        else:
            every = weighted_stack(weight_ED.chunk(len(known)), known, method=method)
        made = every.factors(layer.rank, factors.a.dtype)
        ordered = LowRankLinear.from_factors(made, bias)  # type: ignore[arg-type]
        for old, new in zip(layer.parameters(), ordered.parameters(), strict=True):
            new.requires_grad_(old.requires_grad)
        setattr(ordered, TRANSPOSED, getattr(layer, TRANSPOSED, False))
        model.set_submodule(name, ordered.train(layer.training))


def trainable(model: nn.Module, trained: Trained) -> list[nn.Parameter]:
    """Return the parameters that `recover_` trains.

    Raises:
        InputError: the model has no compressed layer, or `trained` is not known.
    """
    thin = [layer for _, _, layer in compressed_layers(model)]
    if not thin:
        raise InputError("the model has no compressed layer: there is nothing to recover.")
    if trained not in {"factors", "blocks"}:
        raise InputError(f"trained={trained!r} is not known. Use 'factors' or 'blocks'.")
    owners = thin if trained == "factors" else [block for _, block in blocks(model)]
    found = [parameter for owner in owners for parameter in owner.parameters() if parameter.is_floating_point()]
    return list({id(parameter): parameter for parameter in found}.values())


def _only(model: nn.Module, weights: Sequence[nn.Parameter]) -> list[tuple[nn.Parameter, bool]]:
    """Let gradients flow to these parameters alone; return what was asked of every one before."""
    chosen = {id(weight) for weight in weights}
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(id(parameter) in chosen)
    return before


def _batches(ids_NT: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """Yield B windows at a time without end, in another order at each pass."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(ids_NT), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            yield ids_NT[order[start : start + size]]


def _rate(share: float) -> float:
    """Return the factor of the learning rate after this share of the time."""
    return min(share / WARM_UP, 1.0) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


class _Masters:
    """What an optimizer moves: the weights themselves, or float32 copies of those with fewer bits."""

    def __init__(self, weights: Sequence[nn.Parameter], learning_rate: float) -> None:
        self.weights = weights
        self._learning_rate = learning_rate
        self._moved = [one if _is_wide(one) else nn.Parameter(one.detach().float()) for one in weights]
        self._optimizer = torch.optim.AdamW(self._moved, lr=learning_rate, weight_decay=0.0)

    def step(self, rate: float) -> None:
        """Move the weights by their gradients at a share of the learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate * self._learning_rate
        for weight, moved in zip(self.weights, self._moved, strict=True):
            moved.grad = None if weight.grad is None else weight.grad.to(moved.dtype)
        torch.nn.utils.clip_grad_norm_(self._moved, MOST_NORM)
        self._optimizer.step()
        with torch.no_grad():
            for weight, moved in zip(self.weights, self._moved, strict=True):
                weight.grad = moved.grad = None
                if weight is not moved:
                    weight.copy_(moved)


def _is_wide(weight: Tensor) -> bool:
    return weight.dtype in {torch.float32, torch.float64}


@dataclass(frozen=True, eq=False)
class _Student:
    """A model that is trained, and what it is trained with."""

    model: nn.Module
    dense: nn.Module
    masters: _Masters
    autocast: torch.dtype | None

    def step(self, ids_BT: Tensor, rate: float) -> float:
        """Move the weights once; return the loss before, nats a token."""
        device = self.masters.weights[0].device
        casting: Any = nullcontext() if self.autocast is None else torch.autocast(device.type, dtype=self.autocast)
        given = ids_BT.to(device)
        with torch.no_grad(), casting:
            wanted = self.dense(input_ids=given, use_cache=False).logits
        with casting:
            made = self.model(input_ids=given, use_cache=False).logits
        loss = _divergence(wanted.flatten(0, 1), made.flatten(0, 1))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteError(f"recovery: the loss is {value} nats a token. Lower learning_rate.")
        loss.backward()  # type: ignore[no-untyped-call]
        self.masters.step(rate)
        return value


def _divergence(wanted_TV: Tensor, made_TV: Tensor) -> Tensor:
    """Return the mean over tokens of KL(wanted || made), from logits; float32, a chunk of tokens at a time."""
    parts = []
    for wanted, made in zip(_chunks(wanted_TV), _chunks(made_TV), strict=True):
        log_p, log_q = torch.log_softmax(wanted.float(), dim=-1), torch.log_softmax(made.float(), dim=-1)
        parts.append((log_p.exp() * (log_p - log_q)).sum())
    return torch.stack(parts).sum() / len(wanted_TV)


def _chunks(logits_TV: Tensor) -> tuple[Tensor, ...]:
    return torch.split(logits_TV, CHUNK)
