"""Calibration: what text tells about each layer, as averages over tokens.

Letters: N windows, T tokens, D input, E output features.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from narrows._files import sha256_tensor
from narrows._machine import check_fits
from narrows.errors import DeviceError, DtypeError, InputError
from narrows.models._calibrate_batches import Batch, Text, batches, text_hash
from narrows.models._calibrate_run import Progress, Run
from narrows.models._calibrate_sums import Sums
from narrows.models._calibrate_watch import CLIP
from narrows.models._match_shared import shared_inputs
from narrows.models._moments_store import MomentsStore
from narrows.models._moments_store_view import StoredMoments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from torch import nn

    from narrows._values import Moments
    from narrows.models._match import Target

RECIPE = 1  # raise when the same text, model and seed give other sums
BYTES = 8  # of a float64


@torch.inference_mode(mode=False)
def calibrate(
    model: nn.Module,
    windows_NT: Text,
    targets: Sequence[Target],
    *,
    seed: int = 0,
    gradients: bool = True,
    store: str | PathLike[str] | None = None,
    weights_hash: str | None = None,
    max_bytes: int | None = None,
    batch_rows: int = 512,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Mapping[str, Moments]:
    """Return layer name -> moments of what enters it and of the loss gradient at what leaves it.

    The gradients are those of the sum of all tokens' losses, with labels drawn from the model. A model
    that gives `logits` has the cross entropy as its loss, and damage computed from the moments is in
    nats a token. One that gives only hidden states h has |h - label|^2 / (2 V) with labels drawn from
    a Gaussian around h and V the total variance of h over the text; damage is then half of the share of
    that variance that is lost. The model itself is not changed.

    Args:
        windows_NT: (N, T) int64 token ids without padding, or a model's keyword arguments, one mapping
            for each forward pass; tokens whose `attention_mask` is 0 do not count.
        targets: layers of this model.
        seed: of the labels; those of a window depend on it and on the window's index only.
        gradients: False: inputs only, without a backward pass.
        store: a folder for the sums: about every minute they are kept there, a run that was stopped goes
            on from them, and one that had finished returns at once. Same sums as without a stop.
        weights_hash: stands for the model's weights in the store; None: they are hashed here.
        max_bytes: of sums held at a time. Where all layers take more, the text is read in several passes,
            each for some of the layers, and the moments returned are read from the store when asked for.
        batch_rows: tokens in one forward pass; at least one window.
        autocast: dtype of the forward and backward pass; None: the model's own. Sums are float64 always.
        progress: called with what is counted, how many are done and of how many.

    Raises:
        InputError: an argument is wrong, a layer reads nothing, or the output of the model is not known.
        NonFiniteError: NaN or Inf; the text names the layer, the window and the token.
        FileError: the store is of another calibration, or damaged.
        ResourceError: the sums that are held at a time are more than the free memory, or the store cannot be written.
    """
    _check(model, targets, gradients=gradients, autocast=autocast)
    text = batches(windows_NT, batch_rows)
    groups = shared_inputs(model, targets, _first_window(text[0]))
    passes = split_passes(targets, groups, gradients=gradients, max_bytes=max_bytes)
    _check_fits(passes, groups, gradients=gradients)
    run = Run(model, text, seed, autocast, progress, len(passes))
    if store is None:
        if len(passes) > 1:
            raise InputError(
                f"the moments of {len(targets)} layers take {moments_bytes(targets, groups, gradients=gradients)} "
                f"bytes, more than max_bytes={max_bytes}: give a store to keep them in, or a larger max_bytes."
            )
        return run(Sums(targets, groups, gradients=gradients), targets).moments()
    settings = {
        "recipe": RECIPE,
        "weights": weights_hash or _weights_hash(model),
        "text": text_hash(windows_NT),
        "layers": _layers_hash(passes, groups),
        "seed": seed,
        "gradients": gradients,
        "autocast": str(autocast),
        "batch_rows": batch_rows,
        "clip": CLIP,
    }
    with MomentsStore(store, settings, waiting=run.wait) as kept:
        leaders = []
        for number, part in enumerate(passes):
            sums = run(Sums(part, groups, gradients=gradients), part, kept, number)
            if len(passes) == 1:
                return sums.moments()
            sums.check()
            leaders.append(sums.leaders)
        return StoredMoments(kept, leaders)


def _check_fits(passes: Sequence[Sequence[Target]], groups: Mapping[str, str], *, gradients: bool) -> None:
    """Raise ResourceError where the moments that are held at a time are more than the free memory."""
    largest = max(passes, key=lambda part: moments_bytes(part, groups, gradients=gradients))
    devices = {"cpu"} | {str(one.module.weight.device) for one in largest}
    for device in sorted(devices):
        check_fits(
            moments_bytes(largest, groups, gradients=gradients),
            device,
            what=f"what calibration holds at a time, the moments of {len(largest)} layers,",
            advice="Free some memory, or let fewer layers change.",
        )


def moments_bytes(targets: Sequence[Target], groups: Mapping[str, str], *, gradients: bool = True) -> int:
    """Return how many bytes the moments of these layers take, each shared input counted once.

    Args:
        groups: layer name -> group, from `shared_inputs`.
    """
    read = {groups[one.name]: one.in_features for one in targets}
    written = [one.out_features for one in targets] if gradients else []
    return sum(BYTES * size * size for size in (*read.values(), *written))


def short_of_tokens(targets: Sequence[Target], moments: Mapping[str, Moments]) -> tuple[str, ...]:
    """Return a sentence for each size of input that fewer tokens were read for; empty: enough text.

    Fewer tokens than features leave directions of the input that were never seen. Shrinkage makes the
    moments usable all the same, but their damage is a guess there.
    """
    short: dict[tuple[int, int], list[str]] = {}
    for one in targets:
        tokens = moments[one.name].tokens
        if tokens < one.in_features:
            short.setdefault((tokens, one.in_features), []).append(one.name)
    return tuple(
        f"{tokens} calibration tokens are fewer than the {D} input features of {len(names)} layers, as {names[0]}: "
        f"give at least {D} tokens, better ten times as many."
        for (tokens, D), names in short.items()
    )


def split_passes(
    targets: Sequence[Target], groups: Mapping[str, str], *, gradients: bool, max_bytes: int | None
) -> tuple[tuple[Target, ...], ...]:
    """Return the layers in order in parts whose moments take at most `max_bytes` each.

    Raises:
        InputError: one layer alone takes more.
    """
    parts: list[tuple[Target, ...]] = []
    for one in targets:
        alone = moments_bytes([one], groups, gradients=gradients)
        if max_bytes is not None and alone > max_bytes:
            raise InputError(f"max_bytes={max_bytes}: the moments of {one.name} alone take {alone} bytes.")
        longer = (*parts[-1], one) if parts else (one,)
        if parts and (max_bytes is None or moments_bytes(longer, groups, gradients=gradients) <= max_bytes):
            parts[-1] = longer
        else:
            parts.append((one,))
    return tuple(parts)


def _check(model: nn.Module, targets: Sequence[Target], *, gradients: bool, autocast: torch.dtype | None) -> None:
    if not targets:
        raise InputError("there are no targets: nothing to calibrate.")
    own = set(map(id, model.modules()))
    stray = [one.name for one in targets if id(one.module) not in own]
    if stray:
        raise InputError(f"{stray[0]} is not a layer of this model any more: find the targets again.")
    if next(model.parameters()).device.type == "mps":
        raise DeviceError("sums are float64, which the device mps lacks: move the model to the CPU.")
    lowest = autocast or next(model.parameters()).dtype
    if gradients and lowest == torch.float16:
        raise DtypeError("gradients of single tokens vanish in float16: calibrate in bfloat16 or float32.")


def _first_window(batch: Batch) -> torch.Tensor | Mapping[str, torch.Tensor]:
    return batch.inputs[0] if isinstance(batch.inputs, torch.Tensor) else batch.inputs


def _weights_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {sha256_tensor(tensor)} ".encode())
    return digest.hexdigest()


def _layers_hash(passes: Sequence[Sequence[Target]], groups: Mapping[str, str]) -> str:
    lines = [f"{number} {one.name} {groups[one.name]}" for number, part in enumerate(passes) for one in part]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
